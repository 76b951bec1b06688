-- What was dismissed: an item is hidden while its last use is not newer than any of its watermarks.
-- They only grow. uid = '' is the workspace's own list.
create table dismissal (
    -- '' together with uid = '': in every list.
    workspace     text not null,
    uid           text not null,
    -- '': the whole list.
    published_run text not null,
    until         integer not null,
    primary key (workspace, uid, published_run)
) strict, without rowid;

drop view recent_workflows;
create view recent_workflows as
    select t.workspace, t.uid, t.published_run, t.last_used_at, t.run
    from recent_workflow as t
    where not coalesce((
            select d.until >= t.last_used_at from dismissal as d
            where d.workspace = t.workspace and d.uid = t.uid and d.published_run = ''), false)
      and not coalesce((
            select d.until >= t.last_used_at from dismissal as d
            where d.workspace = t.workspace and d.uid = t.uid
              and d.published_run = t.published_run), false)
      and not coalesce((
            select d.until >= t.last_used_at from dismissal as d
            where d.workspace = '' and d.uid = '' and d.published_run = t.published_run), false);
