//! Step `choose`: which sealed ranges of the newest snapshot this run looks at.

use engine::{Ctx, StepError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapshot::chunk::Heights;

use super::Params;
use crate::newest::Reference;
use crate::services::Services;

/// The ranges chosen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Chosen {
    /// The snapshot; none where nothing is published yet, and then there are no ranges.
    pub(super) snapshot: Option<Reference>,
    /// Sealed ranges it has.
    pub(super) sealed: usize,
    /// Those to look at.
    pub(super) ranges: Vec<Heights>,
}

pub(super) async fn run(ctx: Ctx<Services>, params: Params) -> Result<Chosen, StepError> {
    let network = params.network.unwrap_or_default();
    let Some(snapshot) = Reference::latest(ctx.services(), &network).await? else {
        return Ok(Chosen { snapshot: None, sealed: 0, ranges: Vec::new() });
    };
    let manifest = snapshot.manifest(ctx.services()).await?;
    let sealed: Vec<Heights> = manifest.ranges.iter().filter(|range| range.sealed).map(|range| range.heights).collect();
    let ranges = by_chance(&sealed, params.percent, ctx.run().0.as_bytes());
    Ok(Chosen { snapshot: Some(snapshot), sealed: sealed.len(), ranges })
}

/// A share of the ranges, rounded up. The same seed chooses the same, so that a second attempt plans the same children.
fn by_chance(sealed: &[Heights], percent: u32, seed: &[u8]) -> Vec<Heights> {
    let count = (sealed.len() * percent as usize).div_ceil(100);
    let mut drawn = sealed.to_vec();
    drawn.sort_by_cached_key(|range| Sha256::new().chain_update(seed).chain_update(range.from.to_be_bytes()).finalize());
    drawn.truncate(count);
    drawn.sort();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_another_seed_draws_others() {
        let sealed: Vec<Heights> = (0..120).map(|n| Heights { from: n * 5_000, to: n * 5_000 + 4_999 }).collect();
        let drawn = by_chance(&sealed, 2, b"a");
        assert_eq!(drawn.len(), 3);
        assert_eq!(drawn, by_chance(&sealed, 2, b"a"));
        assert_ne!(drawn, by_chance(&sealed, 2, b"b"));
        assert_eq!(by_chance(&sealed, 100, b"a"), sealed);
        assert!(by_chance(&[], 100, b"a").is_empty());
    }
}
