-- The table: the newest use per scope and published run. uid = '' is the workspace's own list.
-- last_used_at is in microseconds since 1970.
create table recent_workflow (
    workspace     text not null,
    uid           text not null default '',
    published_run text not null,
    last_used_at  integer not null,
    run           text,
    primary key (workspace, uid, published_run)
) strict, without rowid;

-- The read: one backward range scan of this index.
create index recent_workflow_newest
    on recent_workflow (workspace, uid, last_used_at, published_run);

-- For applications that read by SQL.
create view recent_workflows as
    select workspace, uid, published_run, last_used_at, run from recent_workflow;
