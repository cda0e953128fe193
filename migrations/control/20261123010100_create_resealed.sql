-- Why: sealed history is compressed once more, at a high level, in the background; the next snapshot refers to the smaller
-- objects. An older binary goes on referring to the larger ones, which stay in the bucket while a manifest names them.
create table snapshots.resealed (
    content_sha256 text primary key,           -- of the rows
    sha256 text not null,                      -- of the object
    bytes bigint not null,
    at timestamptz not null default now()
);
