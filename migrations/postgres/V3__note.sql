-- Notes: what has to be looked at again, kept until that was done. Whoever changes a row leaves one in
-- the same transaction. Never deduplicated: one that is being worked on must not swallow the next.
create table recents.note (
    id            bigint generated always as identity primary key,
    -- Look at this run again …
    run           text collate "C",
    -- … or compute this row again.
    workspace     text collate "C",
    uid           text collate "C",
    published_run text collate "C",
    -- Why it was set aside: its mapping fails.
    error         text,
    check ((run is null) = (published_run is not null))
) with (
    autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);

-- Which rows a run supports.
create index recent_workflow_run on recents.recent_workflow (run);
