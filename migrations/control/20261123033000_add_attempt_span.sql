-- Why: an attempt's trace links to the attempt before it, which takes the id of that one's span as well. An older binary leaves
-- it empty.
alter table snapshots.attempt add column span_id text;
