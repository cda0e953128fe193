-- Why: steps of a queue that are claimed together are picked in the order of their turn. Older binaries need it not.
create index step_by_turn on snapshots.step (queue, priority desc, run_at, id) where state = 'ready';
