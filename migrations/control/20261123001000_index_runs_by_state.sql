-- Why: with a million finished runs a list of those of one state must not walk past all others. An older binary does not
-- use it.
create index run_by_state on snapshots.run (state, created_at desc, id desc);
