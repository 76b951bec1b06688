-- The audit of the table against its history: piece after piece, by whichever replica is free.
create table recents.audit (
    only_row  boolean primary key default true check (only_row),
    -- Where the next piece begins; NULL: with a new pass.
    cursor    text,
    -- Counts who took a piece.
    fence     bigint not null default 0,
    -- When the next piece may be taken.
    next_at   timestamptz not null default 'epoch',
    -- When everything was last looked at.
    passed_at timestamptz
);
insert into recents.audit default values;
