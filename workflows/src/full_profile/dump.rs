//! Step `dump`: reads everything in one transaction, stores it encrypted, and writes the manifest. An attempt that dies leaves objects that no
//! manifest names; the next one begins anew, since another moment is another copy, and takes them away before it writes its manifest.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{SecondsFormat, TimeDelta, Utc};
use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapshot::audit::Audit;
use snapshot::chunk::{Chunk, Heights};
use snapshot::columns::TableShape;
use snapshot::cut::{LEVEL, Vault, cut_whole};
use snapshot::full::{self, Tip};
use snapshot::height::{self, HeightError};
use snapshot::key::SnapshotPath;
use snapshot::manifest::{Archive, Finality, Manifest, Pointer, Producer, Profile, SchemaObject, SequenceValue, VERSION, totals};
use snapshot::schema::dump_everything;
use snapshot::toc;
use sqlx::{Connection, PgConnection, PgPool};

use super::Params;
use crate::full_catalog::{self, FullRow};
use crate::newest;
use crate::services::{FullProfile, Services};
use crate::signing;
use crate::step_error::classify;

/// The manifest that was written, as `latest` will point at it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Dumped {
    pub(super) pointer: Pointer,
    pub(super) tables: usize,
    pub(super) rows: u64,
}

/// Everything that was read, and where it went.
struct Copied {
    tip: Tip,
    shapes: Vec<TableShape>,
    sequences: Vec<SequenceValue>,
    chunks: Vec<Chunk>,
    schema: SchemaObject,
    postgres: String,
}

pub(super) async fn run(ctx: Ctx<Services>, params: Params) -> Result<Dumped, StepError> {
    let services = ctx.services();
    let full = configured(services)?;
    let network = params.network.unwrap_or_default();
    let row = allocate(&ctx, full, &network).await?;
    let path = SnapshotPath::new(&network, &row.id);
    if let Some(dumped) = written(&ctx, full, &path, &row).await? {
        return Ok(dumped);
    }
    let (mine, to) = (ctx.clone(), (full.clone(), path.clone()));
    let copied = services.reading.run(|pool| copy(mine, pool, to)).await?;
    let manifest = manifest(services, &path, &row, copied);
    publish(&ctx, full, &manifest).await
}

pub(super) fn configured(services: &Services) -> Result<&FullProfile, StepError> {
    let gone = "no recipient is configured any more: set SNAPSHOTS_FULL_RECIPIENTS_FILE where the service runs";
    services.full.as_ref().ok_or_else(|| StepError::fail(std::io::Error::other(gone)))
}

/// The run's own row, or a new one under the first free id of the day.
async fn allocate(ctx: &Ctx<Services>, full: &FullProfile, network: &str) -> Result<FullRow, StepError> {
    let control = &ctx.services().control;
    if let Some(mine) = full_catalog::of_run(control, ctx.run().0).await.map_err(classify)? {
        return Ok(mine);
    }
    let floor = newest::pointer_in(&full.store, network).await?.map_or(0, |pointer| pointer.sequence);
    let date = Utc::now().date_naive();
    let taken = full_catalog::ids_on(control, network, date).await.map_err(classify)?;
    let candidates = std::iter::once(date.to_string()).chain((2..).map(|n| format!("{date}.{n}")));
    for id in candidates.filter(|id| !taken.contains(id)) {
        let key = Manifest::key(Profile::Full, SnapshotPath::new(network, &id));
        if full.store.head(&key).await.map_err(classify)?.is_none() {
            return full_catalog::allocate(control, ctx.run().0, network, &id, floor).await.map_err(StepError::retry);
        }
    }
    unreachable!("the candidates never end")
}

/// What an earlier attempt wrote, if it came to writing its manifest. Only operators could read that; what `latest` needs was kept.
async fn written(
    ctx: &Ctx<Services>,
    full: &FullProfile,
    path: &SnapshotPath,
    row: &FullRow,
) -> Result<Option<Dumped>, StepError> {
    let key = Manifest::key(Profile::Full, path.clone());
    let Some((object, _)) = full.store.get(&key).await.map_err(classify)? else {
        // A signature that was written before its manifest, and never got one.
        full.store.delete(&key.signature()).await.map_err(classify)?;
        return Ok(None);
    };
    let mine = ctx.state::<Dumped>().await?;
    let sha256 = hex::encode(Sha256::digest(&object));
    match mine.filter(|_| row.manifest_sha256.as_ref() == Some(&sha256)) {
        Some(dumped) if dumped.pointer.manifest_sha256 == sha256 => Ok(Some(dumped)),
        _ => Err(StepError::fail(std::io::Error::other(format!("{key} is not this run's; retry the run from its start")))),
    }
}

async fn copy(ctx: Ctx<Services>, pool: PgPool, (full, path): (FullProfile, SnapshotPath)) -> Result<Copied, StepError> {
    let services = ctx.services();
    let vault = Vault { store: &full.store, path: &path, recipients: &full.recipients };
    // A connection of its own: one that is left in the middle of a COPY must not go back to the others.
    let mut conn = PgConnection::connect_with(&pool.connect_options()).await.map_err(classify)?;
    let (mut tx, exported) = full::begin(&mut conn).await.map_err(classify)?;
    let tip = full::tip(&mut tx).await.map_err(classify)?.ok_or_else(|| classify(HeightError::Empty))?;
    height::network(&mut tx, Some(&path.network)).await.map_err(classify)?;
    let postgres: String = sqlx::query_scalar("show server_version").fetch_one(&mut *tx).await.map_err(classify)?;
    let shapes = full::tables(&mut tx).await.map_err(classify)?;
    let sequences = full::sequences(&mut tx).await.map_err(classify)?;
    let schema = schema(services, vault, &exported, &tip).await?;
    let total = estimate(&mut tx).await.map_err(classify)?;
    let done = AtomicU64::new(0);
    let told = |bytes: u64| ctx.progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total, "bytes");
    let mut chunks = Vec::new();
    for shape in &shapes {
        if ctx.stopping() {
            return Err(StepError::Yield);
        }
        chunks.extend(cut_whole(&mut tx, shape, vault, &told).await.map_err(classify)?);
    }
    tx.rollback().await.map_err(classify)?;
    let postgres = postgres.split_whitespace().next().unwrap_or_default().to_owned();
    Ok(Copied { tip, shapes, sequences, chunks, schema, postgres })
}

/// What the tables take on the server: about what their text does.
async fn estimate(conn: &mut PgConnection) -> sqlx::Result<u64> {
    let sql = "select coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint from pg_catalog.pg_class c
               join pg_catalog.pg_namespace n on n.oid = c.relnamespace
               where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname <> all($1)";
    let bytes: i64 = sqlx::query_scalar(sql).bind(&full::OURS[..]).fetch_one(conn).await?;
    Ok(bytes.unsigned_abs())
}

async fn schema(services: &Services, vault: Vault<'_>, exported: &str, tip: &Tip) -> Result<SchemaObject, StepError> {
    let entries = dump_everything(&services.pg_dump, &services.indexed_url, (exported, &full::OURS)).await;
    let toc = toc::build(&entries.map_err(StepError::retry)?, &[], tip.timestamp.unsigned_abs()).map_err(StepError::fail)?;
    let (raw_bytes, content_sha256) = (toc.bytes.len() as u64, hex::encode(Sha256::digest(&toc.bytes)));
    let compressed = zstd::encode_all(&toc.bytes[..], LEVEL).map_err(StepError::fail)?;
    let (sha256, _) = vault.put("the schema", compressed).await.map_err(classify)?;
    Ok(SchemaObject { sha256, content_sha256, raw_bytes })
}

fn manifest(services: &Services, path: &SnapshotPath, row: &FullRow, copied: Copied) -> Manifest {
    let time = |at: chrono::DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let valid = TimeDelta::from_std(services.settings.latest_valid).unwrap_or_default();
    let Copied { tip, shapes, sequences, chunks, schema, postgres } = copied;
    let height = tip.height.unsigned_abs();
    Manifest {
        version: VERSION,
        network: path.network.clone(),
        profile: Profile::Full,
        snapshot_id: path.id.clone(),
        sequence: row.sequence.unsigned_abs(),
        previous: None,
        created_at: time(row.created_at),
        expires_at: row.created_at.checked_add_signed(valid).map(time),
        block_height: height,
        block_hash: tip.hash,
        block_time: tip.timestamp.unsigned_abs(),
        burn_block_height: tip.burn_block_height.unsigned_abs(),
        coverage: Heights { from: tip.first.unsigned_abs(), to: height },
        finality: Finality { confirmations: 0, burn_tip: tip.burn_block_height.unsigned_abs() },
        format: "copy_age".into(),
        compression: "zstd".into(),
        checksum: String::new(),
        url: String::new(),
        archive: Archive::default(),
        size_bytes: chunks.iter().map(|chunk| chunk.bytes).sum(),
        raw_bytes: chunks.iter().map(|chunk| chunk.raw_bytes).sum(),
        tables: totals(&chunks),
        shapes,
        schema,
        schema_version: None,
        producer: Producer { version: env!("CARGO_PKG_VERSION").into(), postgres },
        audit: Audit { gaps: tip.gaps.unsigned_abs(), broken_links: tip.broken_links.unsigned_abs(), ..Audit::default() },
        chunks,
        ranges: Vec::new(),
        sequences,
        unknown: serde_json::Map::new(),
    }
}

/// Encrypts the manifest, keeps what later attempts need of it, signs it and writes it.
async fn publish(ctx: &Ctx<Services>, full: &FullProfile, manifest: &Manifest) -> Result<Dumped, StepError> {
    let services = ctx.services();
    let (plain, recipients) = (manifest.to_bytes(), full.recipients.clone());
    let object = ctx.blocking(move || recipients.encrypt(&plain).map_err(StepError::fail)).await?;
    let manifest_sha256 = hex::encode(Sha256::digest(&object));
    let rows = manifest.tables.values().map(|table| table.rows).sum();
    let dumped = Dumped { pointer: manifest.pointer(manifest_sha256.clone(), true), tables: manifest.shapes.len(), rows };
    let row = FullRow {
        network: manifest.network.clone(),
        id: manifest.snapshot_id.clone(),
        sequence: manifest.sequence.cast_signed(),
        state: String::new(),
        created_at: Utc::now(),
        manifest_sha256: Some(manifest_sha256),
        block_height: Some(manifest.block_height.cast_signed()),
        tables: i32::try_from(dumped.tables).ok(),
        rows: Some(rows.cast_signed()),
        raw_bytes: Some(manifest.raw_bytes.cast_signed()),
        size_bytes: Some(manifest.size_bytes.cast_signed()),
    };
    ctx.save_state(&dumped).await?;
    full_catalog::intend(&services.control, ctx.run().0, &row).await.map_err(classify)?;
    // After the state was kept, which an attempt that is held for dead no longer can.
    remove_others(full, manifest).await?;
    signing::publish_keys(services, &full.store).await?;
    let key = Manifest::key(Profile::Full, manifest.path());
    signing::put_signed(services, &full.store, (key, manifest.sequence), object).await?;
    Ok(dumped)
}

/// Deletes what attempts that died have stored under the snapshot's name.
async fn remove_others(full: &FullProfile, manifest: &Manifest) -> Result<(), StepError> {
    let chunks = manifest.chunks.iter().map(|chunk| &chunk.sha256);
    let named: HashSet<String> =
        chunks.chain([&manifest.schema.sha256]).map(|sha256| manifest.object(sha256).to_string()).collect();
    for object in full.store.list(&format!("{}/", manifest.path())).await.map_err(classify)? {
        if !named.contains(&object.key) {
            full.store.delete_at(&object.key).await.map_err(classify)?;
        }
    }
    Ok(())
}
