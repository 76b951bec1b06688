-- Jobs of several kinds, over everything or over one workspace.
create type recents.workspaces as range (subtype = text, collation = "C");

alter table recents.job
    -- NULL: everything.
    add column workspace       text collate "C",
    -- How, as JSON: the same work has the same text.
    add column options         text not null default '{}',
    -- A request with the same key is the same request.
    add column idempotency_key text collate "C",
    -- 'operator': only a resume lets it go on.
    add column paused_by       text;

create unique index job_idempotency_key on recents.job (idempotency_key);
create index job_state on recents.job (state, id);

-- Jobs whose scopes overlap do not run together, whatever they believe; everything overlaps all.
drop index recents.job_one_running;
alter table recents.job add constraint job_alone
    exclude using gist (recents.workspaces(workspace, workspace, '[]') with &&)
    where (state in ('queued', 'running'));

-- What a dry run would change, a row a line.
create table recents.job_plan (
    job           text collate "C" not null references recents.job on delete cascade,
    workspace     text collate "C" not null,
    uid           text collate "C" not null,
    published_run text collate "C" not null,
    line          text not null,
    primary key (job, workspace, uid, published_run)
);
