-- Why: processes of one service have different roles, and operators must see which is missing. An older binary has
-- none written, and is seen as before.
alter table snapshots.worker add column roles text[] not null default '{}';
