-- What an operator changes while the service runs; every replica follows.
create table setting (
    name       text primary key not null,
    value      text not null,
    changed_at integer not null
) strict, without rowid;
