-- Nothing: SQLite takes the index with the most columns of a look-up.
select 1;
