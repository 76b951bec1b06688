-- The audit of the table against its history: piece after piece, by whichever replica is free.
create table audit (
    only_row  integer primary key not null default 1 check (only_row = 1),
    -- Where the next piece begins; NULL: with a new pass.
    cursor    text,
    -- Counts who took a piece.
    fence     integer not null default 0,
    -- When the next piece may be taken.
    next_at   integer not null default 0,
    -- When everything was last looked at.
    passed_at integer
) strict;
insert into audit default values;
