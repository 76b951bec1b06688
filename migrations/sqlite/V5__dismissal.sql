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
    where not exists (
        select 1 from dismissal as d
        where d.until >= t.last_used_at
          and (d.workspace, d.uid, d.published_run) in (
              values (t.workspace, t.uid, t.published_run), (t.workspace, t.uid, ''), ('', '', t.published_run))
    );
