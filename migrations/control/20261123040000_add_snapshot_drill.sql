-- The outcome of the last restore drill of each snapshot, as its drill.json in the bucket says it: freshness is judged by the newest
-- snapshot that was proved, and a snapshot that was disproved is an alarm for as long as it is published.
alter table snapshots.snapshot
    add column drill jsonb,
    add column drilled_at timestamptz;
