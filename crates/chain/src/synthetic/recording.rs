//! Writes a synthetic chain as a recording of what a node posted, and beside it what a correct indexer ends with.
//!
//! Not the reader (see `crate::recording`). Invariant: line by line, so memory holds one block.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::drawn::{Chain, Drawn};
use super::expected::{Expected, Reorg, digests};
use super::fork::forks;
use super::header::Branch;
use super::plan::{Post, posts};
use super::{Spec, SyntheticError, payload};

/// Writes the recording to `path` (gzip when its name ends in `.gz`) and the expectations to `path` + `.expected.json`.
///
/// # Errors
/// See [`SyntheticError`].
pub fn write_recording(spec: &Spec, path: &Path) -> Result<Expected, SyntheticError> {
    if spec.blocks == 0 {
        return Err(SyntheticError::NoBlocks);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SyntheticError::Write { path, source }
    };
    let chain = Chain::new(spec);
    let mut expected = write_posts(&chain, spec.blocks, path).map_err(failed(path))?;
    let (digests, types) = digests(&chain, spec.blocks);
    expected.canonical_digest_sha256 = digests;
    expected.counts.canonical_tx_types = types;
    let beside = beside(path);
    let text = serde_json::to_vec_pretty(&expected).expect("counts have text keys");
    std::fs::write(&beside, text).map_err(failed(&beside))?;
    Ok(expected)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".expected.json");
    PathBuf::from(name)
}

fn write_posts(chain: &Chain, blocks: u64, path: &Path) -> std::io::Result<Expected> {
    let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let expected = before_posts(chain, blocks);
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut gzip = GzEncoder::new(file, Compression::new(6));
        let expected = write_lines(chain, blocks, &mut gzip, expected)?;
        gzip.finish()?.flush()?;
        return Ok(expected);
    }
    let mut file = file;
    let expected = write_lines(chain, blocks, &mut file, expected)?;
    file.flush()?;
    Ok(expected)
}

/// What is known of the counts without looking at a block.
fn before_posts(chain: &Chain, blocks: u64) -> Expected {
    let mut expected = Expected::default();
    let counts = &mut expected.counts;
    (counts.height_max, counts.canonical_blocks, counts.canonical_low_high) = (blocks - 1, blocks, [0, blocks - 1]);
    for fork in forks(chain, blocks) {
        counts.orphaned_blocks += fork.depth;
        counts.heights_with_forks.extend(fork.from..fork.end());
        if !fork.late {
            counts.reorgs.push(Reorg::of(chain, fork));
        }
    }
    counts.blocks_unique = blocks + counts.orphaned_blocks;
    let burn = |height| chain.header(height, Branch::Winner).burn.height;
    counts.burn_blocks_unique = burn(blocks - 1) - burn(0) + 1;
    expected
}

fn write_lines(chain: &Chain, blocks: u64, out: &mut impl Write, mut expected: Expected) -> std::io::Result<Expected> {
    for post in posts(chain, blocks) {
        let (path, body) = body(chain, post, &mut expected);
        let counts = &mut expected.counts;
        counts.lines += 1;
        *counts.paths.entry(path.to_owned()).or_default() += 1;
        writeln!(out, r#"{{"seq":{},"received_at":null,"path":"{path}","payload":{body}}}"#, counts.lines)?;
    }
    expected.counts.redelivered_blocks = expected.counts.blocks_received - expected.counts.blocks_unique;
    Ok(expected)
}

fn body(chain: &Chain, post: Post, expected: &mut Expected) -> (&'static str, String) {
    let counts = &mut expected.counts;
    match post {
        Post::Burn(height) => {
            counts.burn_blocks += 1;
            ("/new_burn_block", payload::new_burn_block(&chain.header(height, Branch::Winner), chain))
        }
        Post::Block { height, branch, first } => {
            let block = chain.block(height, branch);
            counts.blocks_received += 1;
            if first {
                let (transactions, events) = (block.transactions.len() as u64, block.events() as u64);
                counts.transactions += transactions;
                counts.events += events;
                if branch == Branch::Winner {
                    counts.canonical_transactions += transactions;
                    counts.canonical_events += events;
                }
            }
            ("/new_block", payload::new_block(chain, &block, branch))
        }
        Post::EmptyGenesis => {
            counts.blocks_received += 1;
            let genesis = Drawn { header: chain.header(0, Branch::Winner), transactions: vec![] };
            ("/new_block", payload::new_block(chain, &genesis, Branch::Winner))
        }
    }
}
