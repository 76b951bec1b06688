-- Jobs of several kinds, over everything or over one workspace.

-- NULL: everything.
alter table job add column workspace text;
-- How, as JSON: the same work has the same text.
alter table job add column options text not null default '{}';
-- A request with the same key is the same request.
alter table job add column idempotency_key text;
-- 'operator': only a resume lets it go on.
alter table job add column paused_by text;

create unique index job_idempotency_key on job (idempotency_key);
create index job_state on job (state, id);

-- Jobs whose scopes overlap do not run together, whatever they believe; everything overlaps all.
drop index job_one_running;
create trigger job_alone_inserted before insert on job
when new.state in ('queued', 'running') begin
    select raise(abort, 'another job overlaps') where exists (
        select 1 from job where state in ('queued', 'running')
          and (workspace is null or new.workspace is null or workspace = new.workspace));
end;
create trigger job_alone_updated before update on job
when new.state in ('queued', 'running') and old.state not in ('queued', 'running') begin
    select raise(abort, 'another job overlaps') where exists (
        select 1 from job where state in ('queued', 'running') and id <> new.id
          and (workspace is null or new.workspace is null or workspace = new.workspace));
end;

-- What a dry run would change, a row a line.
create table job_plan (
    job           text not null references job on delete cascade,
    workspace     text not null,
    uid           text not null,
    published_run text not null,
    line          text not null,
    primary key (job, workspace, uid, published_run)
) strict, without rowid;
