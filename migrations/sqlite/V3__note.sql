-- Notes: what has to be looked at again, kept until that was done. Whoever changes a row leaves one in
-- the same transaction. Never deduplicated: one that is being worked on must not swallow the next.
create table note (
    -- Never used twice: a note is deleted by its id.
    id            integer primary key autoincrement,
    -- Look at this run again …
    run           text,
    -- … or compute this row again.
    workspace     text,
    uid           text,
    published_run text,
    -- Why it was set aside: its mapping fails.
    error         text,
    check ((run is null) = (published_run is not null))
) strict;

-- Which rows a run supports.
create index recent_workflow_run on recent_workflow (run);
