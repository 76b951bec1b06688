-- PostgreSQL counts changes itself: the position in its log says what was written. SQLite has a table
-- of this name.
select 1;
