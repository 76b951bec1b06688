-- Counts the changes of lists, whoever makes them, so that a process that keeps answers sees those of
-- others, and so that what was written can be named.
create table change (
    one      integer primary key check (one = 1),
    -- This database, and no other.
    database integer not null,
    position integer not null
) strict;
insert into change (one, database, position) values (1, random(), 0);

create trigger recent_workflow_inserted after insert on recent_workflow begin
    update change set position = position + 1;
end;
create trigger recent_workflow_updated after update on recent_workflow begin
    update change set position = position + 1;
end;
create trigger recent_workflow_deleted after delete on recent_workflow begin
    update change set position = position + 1;
end;
create trigger dismissal_inserted after insert on dismissal begin
    update change set position = position + 1;
end;
create trigger dismissal_updated after update on dismissal begin
    update change set position = position + 1;
end;
