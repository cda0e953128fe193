-- Why: a mark stands for what readers are served. It may go only once `latest` moves to a snapshot that has cut the range anew, so a
-- snapshot notes, as it is published, which marks it has answered, and its promotion takes those away. An older binary takes marks
-- away as it publishes, as it did.
alter table snapshots.dirty_range add column recut_by bigint;   -- highest sequence number of the snapshots that have cut it since
