-- What was dismissed: an item is hidden while its last use is not newer than any of its watermarks.
-- They only grow. uid = '' is the workspace's own list.
create table recents.dismissal (
    -- '' together with uid = '': in every list.
    workspace     text collate "C" not null,
    uid           text collate "C" not null,
    -- '': the whole list.
    published_run text collate "C" not null,
    until         timestamptz not null,
    primary key (workspace, uid, published_run)
);

create or replace view recents.recent_workflows as
    select t.workspace, t.uid, t.published_run, t.last_used_at, t.run
    from recents.recent_workflow as t
    where not coalesce((
            select d.until >= t.last_used_at from recents.dismissal as d
            where d.workspace = t.workspace and d.uid = t.uid and d.published_run = ''), false)
      and not coalesce((
            select d.until >= t.last_used_at from recents.dismissal as d
            where d.workspace = t.workspace and d.uid = t.uid
              and d.published_run = t.published_run), false)
      and not coalesce((
            select d.until >= t.last_used_at from recents.dismissal as d
            where d.workspace = '' and d.uid = '' and d.published_run = t.published_run), false);
