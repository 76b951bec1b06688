-- PostgreSQL thinks a look-up by key as cheap through recent_workflow_newest, which walks a whole list
-- for it, as through the primary key, and takes the index that was made last. Let that be the key's.
alter table recents.recent_workflow
    drop constraint recent_workflow_pkey,
    add primary key (workspace, uid, published_run);
