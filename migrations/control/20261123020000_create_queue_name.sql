-- Why: a queue that is renamed still has steps and doorbells under its old name, and older binaries go on making them while a
-- deploy lasts. The migration that renames a queue writes a row; the sweep moves what is unfinished. Older binaries read neither.
create table snapshots.queue_name (
    former text primary key,
    queue text not null check (queue <> former)
);
