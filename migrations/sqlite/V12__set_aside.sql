-- The notes that are set aside: few, and asked for with every look while there are any. Without it, that reads
-- all notes that wait.
create index note_set_aside on note (run) where error is not null;
