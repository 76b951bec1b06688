-- Which store this is, also after it was restored or copied: capture takes the notes of a history for
-- one store alone.
create table recents.identity (id text collate "C" primary key);
insert into recents.identity values (gen_random_uuid()::text);
