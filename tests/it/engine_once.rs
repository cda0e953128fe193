//! Idempotency keys: a request that is sent again starts nothing again.
use engine::{Ctx, Idempotency, KeyError, OnceError, RunFilter, StartError, StartRun, StepError, Workflow};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::engine_support::Bench;

async fn noop(_: Ctx<()>, _: Value) -> Result<(), StepError> {
    Ok(())
}

async fn bench() -> Bench<()> {
    Bench::new(|| vec![Workflow::named("w", 1).step("only", noop)]).await
}

fn asked(key: &str) -> Idempotency<'_> {
    Idempotency { principal: "ann", request: "POST /workflows/w/runs", key, body: b"{}" }
}

async fn runs(bench: &Bench<()>) -> usize {
    bench.client.runs(&RunFilter::default(), 100).await.unwrap().len()
}

#[tokio::test]
async fn one_key_sent_twenty_times_at_once_starts_one_run() {
    let bench = bench().await;
    let request = StartRun::new("w", json!({}));
    let key = asked("k");
    let answers = join_all((0..20).map(|_| bench.client.start_once(&request, Some(&key), "ann"))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|started| !started.replayed).count(), 1);
    assert!(answers.iter().all(|started| started.run == answers[0].run));
    assert_eq!(runs(&bench).await, 1);
    let others = Idempotency { principal: "bob", ..key };
    assert!(!bench.client.start_once(&request, Some(&others), "bob").await.unwrap().replayed, "keys are their principal's own");
}

#[tokio::test]
async fn a_key_used_for_another_body_is_refused_and_starts_nothing() {
    let bench = bench().await;
    let request = StartRun::new("w", json!({}));
    let first = bench.client.start_once(&request, Some(&asked("k")), "ann").await.unwrap();
    let other = Idempotency { body: b"{\"n\":1}", ..asked("k") };
    match bench.client.start_once(&request, Some(&other), "ann").await {
        Err(OnceError::Key(KeyError::Reused { run })) => assert_eq!(run, first.run),
        answer => panic!("{answer:?}"),
    }
    for key in ["", &"k".repeat(256)] {
        assert!(matches!(
            bench.client.start_once(&request, Some(&asked(key)), "ann").await,
            Err(OnceError::Key(KeyError::Malformed))
        ));
    }
    assert_eq!(runs(&bench).await, 1);
}

#[tokio::test]
async fn a_start_that_is_refused_leaves_its_key_free() {
    let bench = bench().await;
    let unknown = bench.client.start_once(&StartRun::new("x", json!({})), Some(&asked("k")), "ann").await;
    assert!(matches!(unknown, Err(OnceError::Start(StartError::UnknownWorkflow { .. }))));
    assert!(!bench.client.start_once(&StartRun::new("w", json!({})), Some(&asked("k")), "ann").await.unwrap().replayed);
}
