-- Long work that survives its worker: who holds it, how far it came, how it ended.
create table job (
    id           text primary key not null,
    kind         text not null,
    -- What is read, so that a cursor is never applied to something else.
    source       text not null,
    state        text not null,
    -- Counts the takeovers: whoever holds a lower number has lost the job.
    fence        integer not null default 1,
    -- NULL: nobody holds it.
    lease_until  integer,
    -- All up to here is in the table.
    cursor       text,
    -- Where the work ends; fixed at the start.
    range_end    text,
    scanned      integer not null default 0,
    total        integer,
    -- What was counted so far, as JSON.
    counts       text not null default '{}',
    started_at   integer not null,
    finished_at  integer,
    error        text
) strict, without rowid;

-- Two workers never run the same kind of job, whatever they believe about leases.
create unique index job_one_running on job (kind) where state = 'running';
