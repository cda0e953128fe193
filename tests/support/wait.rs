//! Waiting without sleeping for a guessed time.
use std::time::{Duration, Instant};

/// Polls until `condition` holds; panics with `what` after `deadline`.
pub(crate) async fn wait_until(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "waited {deadline:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
