-- Nothing: SQLite prefers the index that has the order.
select 1;
