-- Long work that survives its worker: who holds it, how far it came, how it ended.
create table recents.job (
    id           text collate "C" primary key,
    kind         text not null,
    -- What is read, so that a cursor is never applied to something else.
    source       text not null,
    state        text not null,
    -- Counts the takeovers: whoever holds a lower number has lost the job.
    fence        bigint not null default 1,
    -- NULL: nobody holds it.
    lease_until  timestamptz,
    -- All up to here is in the table.
    cursor       text,
    -- Where the work ends; fixed at the start.
    range_end    text,
    scanned      bigint not null default 0,
    total        bigint,
    -- What was counted so far, as JSON.
    counts       text not null default '{}',
    started_at   timestamptz not null,
    finished_at  timestamptz,
    error        text
);

-- Two workers never run the same kind of job, whatever they believe about leases.
create unique index job_one_running on recents.job (kind) where state = 'running';
