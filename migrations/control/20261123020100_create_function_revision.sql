-- Why: during a deploy an older binary may start after a newer one; it must not put its older functions over the newer ones.
-- Older binaries than this write theirs without looking.
create table snapshots.function_revision (
    revision integer not null,
    only_row boolean primary key default true check (only_row)
);
