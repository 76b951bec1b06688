-- Which store this is, also after it was restored or copied: capture takes the notes of a history for
-- one store alone.
create table identity (id text primary key not null) strict, without rowid;
insert into identity
    select format('%s-%s-4%s-8%s-%s', substr(h, 1, 8), substr(h, 9, 4), substr(h, 13, 3),
                  substr(h, 16, 3), substr(h, 19, 12))
    from (select lower(hex(randomblob(16))) as h);
