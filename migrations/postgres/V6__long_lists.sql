-- Nearly all lists are short, so PostgreSQL expects one row of each, thinks that sorting a list is as
-- cheap as reading it in order, and keeps such a plan for the long ones too. Let it expect long lists:
-- for the plans that are wanted, ranges of one index and look-ups by key, that is right for all. It counts
-- from the next ANALYZE on; not now, because what is known of an empty table would spoil its first plans.
alter table recents.recent_workflow
    alter column workspace set (n_distinct = 10),
    alter column uid set (n_distinct = 10);
