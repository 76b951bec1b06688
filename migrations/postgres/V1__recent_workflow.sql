-- The table: the newest use per scope and published run. uid = '' is the workspace's own list.
-- Ids are compared by bytes everywhere, hence COLLATE "C".
create table recents.recent_workflow (
    workspace     text collate "C" not null,
    uid           text collate "C" not null default '',
    published_run text collate "C" not null,
    last_used_at  timestamptz not null,
    run           text collate "C",
    primary key (workspace, uid, published_run)
) with (
    -- A hot row leaves a dead version behind at every flush, and the read walks them: vacuum early,
    -- without pauses, and without the exclusive lock that giving space back would take.
    autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_cost_delay = 0,
    vacuum_truncate = off
);

-- The read: one backward range scan of this index.
create index recent_workflow_newest
    on recents.recent_workflow (workspace, uid, last_used_at, published_run);

-- For applications that read by SQL.
create view recents.recent_workflows as
    select workspace, uid, published_run, last_used_at, run from recents.recent_workflow;
