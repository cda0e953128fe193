-- Whether the archive of a snapshot lies in the bucket, or is spliced from chunks by the service for whoever asks: the first snapshot
-- of a week needs to know whether another stored one.
alter table snapshots.snapshot add column archive text not null default 'stored' check (archive in ('stored', 'on_request'));
