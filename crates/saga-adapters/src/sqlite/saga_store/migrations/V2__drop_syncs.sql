-- Nothing is synced for its own sake any more: every commit is on disk before anything goes out.
alter table owner drop column syncs;
