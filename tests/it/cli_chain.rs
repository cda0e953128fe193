//! `chain generate`: into a file or into an empty database, from a seed.

use std::path::Path;

use serde_json::Value;

use crate::support::{Ran, bare_command, database, run};

async fn generate(args: &[&str]) -> Ran {
    run(bare_command(&["chain", "generate", "--json"]).args(args)).await
}

async fn recorded(file: &Path, seed: &str) -> (Value, Vec<u8>) {
    let result = generate(&["--blocks", "120", "--seed", seed, "--out", file.to_str().unwrap()]).await.result();
    let beside = format!("{}.expected.json", file.display());
    let expected: Value = serde_json::from_slice(&std::fs::read(beside).unwrap()).unwrap();
    assert_eq!(result["expected"], expected);
    (expected, std::fs::read(file).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_gives_the_same_recording_each_time_and_another_seed_another() {
    let dir = tempfile::tempdir().unwrap();
    let (expected, bytes) = recorded(&dir.path().join("a.ndjson.gz"), "5").await;
    assert_eq!(expected["counts"]["canonical_blocks"], 120);
    assert_eq!(recorded(&dir.path().join("b.ndjson.gz"), "5").await, (expected.clone(), bytes));
    let (other, plain) = recorded(&dir.path().join("c.ndjson"), "6").await;
    assert!(other["canonical_digest_sha256"] != expected["canonical_digest_sha256"]);
    assert!(plain.starts_with(b"{"), "only names that end in .gz are compressed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_goes_into_an_empty_database_once() {
    let database = database().await;
    let load = ["--blocks", "120", "--profile", "quiet", "--into", database.url()];
    let result = generate(&load).await.result();
    let pool = database.pool().await;
    let count = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.unwrap();
    assert_eq!(count("select count(*) from public.blocks where canonical").await, 120);
    assert_eq!(result["events"], count("select count(*) from public.events").await);
    let error = generate(&load).await.error(6);
    assert!(error["message"].as_str().unwrap().contains("already has 120 blocks"), "{error}");
    assert_eq!(count("select count(*) from public.blocks").await, 120);

    let mut from_env = bare_command(&["chain", "generate", "--json", "--blocks", "9", "--into", "env"]);
    run(from_env.env("DATABASE_URL", database.url())).await.error(6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_generated_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.ndjson").to_str().unwrap().to_owned();
    for args in [
        &["--blocks", "9"][..],
        &["--out", &file],
        &["--blocks", "9", "--out", &file, "--into", "postgres://localhost/x"],
        &["--blocks", "-9", "--out", &file],
        &["--blocks", "9", "--profile", "loud", "--out", &file],
        &["--blocks", "9", "--network", "Main/Net", "--out", &file],
        &["--blocks", "9", "--into", "env"],
        &["--blocks", "9", "--into", "nonsense"],
        &["--blocks", "0", "--out", &file],
    ] {
        generate(args).await.error(2);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    generate(&["--blocks", "9", "--out", "/nowhere/x.ndjson"]).await.error(1);
}
