-- What an operator changes while the service runs; every replica follows.
create table recents.setting (
    name       text collate "C" primary key,
    value      text not null,
    changed_at timestamptz not null
);
