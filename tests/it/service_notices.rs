//! Operators hear of what goes wrong, once, whatever dies meanwhile; and a dead man's switch hears of each snapshot.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sqlx::PgPool;

use crate::support::{Received, Receiver, ServiceProcess, Site, growing_site, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TOKEN: &str = "T0KEN-of-the-chat";

/// Starts a service that tells the receiver, and keeps all that it logs.
async fn serve(site: &Site, receiver: &str, name: &str) -> ServiceProcess {
    let secret = site.dir.path().join("alarm-secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let log = std::fs::File::options().create(true).append(true).open(site.dir.path().join("log")).unwrap();
    let mut command = site.command();
    command.args(["serve", "--json", "--listen", "127.0.0.1:0", "--confirmations", "0"]).stdout(Stdio::piped()).stderr(log);
    command
        .env("SNAPSHOTS_DATA_DIR", site.dir.path().join(name))
        .env("SNAPSHOTS_ALARM_WEBHOOK", format!("{receiver}/alarms/{TOKEN}"))
        .env("SNAPSHOTS_ALARM_SECRET_FILE", secret)
        .env("SNAPSHOTS_HEARTBEAT_URL", format!("{receiver}/beats/{TOKEN}"))
        .env("RUST_LOG", "info");
    ServiceProcess::start(command).await
}

/// Waits until so many requests to a path have come.
async fn arrived(receiver: &Receiver, path: &str, count: usize) -> Vec<Received> {
    let mut found = Vec::new();
    wait_until(PATIENCE, "messages arrive", async || {
        found = receiver.received().into_iter().filter(|one| one.path.starts_with(path)).collect();
        found.len() >= count
    })
    .await;
    assert_eq!(found.len(), count);
    found
}

/// The id of a message, whose signature must be right.
fn checked_id(received: &Received) -> String {
    let header = |name: &str| received.headers[name].to_str().unwrap().to_owned();
    let key = STANDARD.decode(&SECRET["whsec_".len()..]).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&received.body);
    assert_eq!(header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    header("webhook-id")
}

fn said(received: &Received) -> Value {
    serde_json::from_slice(&received.body).unwrap()
}

/// Everything that the ledger keeps of runs, as text.
async fn ledger(pool: &PgPool) -> String {
    let mut all = String::new();
    for table in ["run", "step", "attempt", "event", "notice", "audit_log", "worker", "figures"] {
        let sql = format!("select coalesce(string_agg(to_jsonb(t)::text, ' '), '') from snapshots.{table} t");
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.unwrap();
        all.push_str(&rows);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_snapshot_is_told_once_though_the_receiver_fails_and_the_service_is_killed() {
    let site = site_with_chain(60).await;
    let pool = site.database.pool().await;
    sqlx::raw_sql(
        "create table aside as select * from public.events where block_height = 30;
                   create table aside_transactions as select * from public.transactions where block_height = 30;
                   create table aside_blocks as select * from public.blocks where height = 30;
                   delete from public.events where block_height = 30; delete from public.transactions where block_height = 30;
                   delete from public.blocks where height = 30",
    )
    .execute(&pool)
    .await
    .unwrap();
    let receiver = Receiver::start(&[500, 500]).await;
    let first = serve(&site, &receiver.url, "first").await;
    let error = first.cut_refused().await;
    arrived(&receiver, "/alarms", 2).await;
    first.kill().await;
    let second = serve(&site, &receiver.url, "second").await;
    let third = serve(&site, &receiver.url, "third").await;
    let posts = arrived(&receiver, "/alarms", 3).await;
    assert_eq!(posts.iter().map(|post| post.status).collect::<Vec<_>>(), [500, 500, 200]);
    let ids: Vec<String> = posts.iter().map(checked_id).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one message, one id: {ids:?}");
    assert!(posts.iter().all(|post| post.body == posts[0].body && post.path.ends_with(TOKEN)));
    let message = said(&posts[2]);
    assert_eq!(message["type"], "snapshot.failed");
    assert_eq!((&message["data"]["network"], &message["data"]["error"]), (&json!("mainnet"), &json!(error)));
    assert_eq!(message["data"]["findings"][0]["kind"], "snapshot.audit_failed");
    assert!(message["text"].as_str().unwrap().starts_with("snapshot of mainnet failed: "), "{message}");

    // Mended and retried, it tells the dead man's switch; what failed before is not told again.
    sqlx::raw_sql(
        "insert into public.blocks select * from aside_blocks; insert into public.transactions select * from aside_transactions;
                   insert into public.events select * from aside",
    )
    .execute(&pool)
    .await
    .unwrap();
    let run = message["data"]["runId"].as_str().unwrap();
    assert_eq!(second.post(&format!("/runs/{run}/retry")).await.status(), 202);
    assert_eq!(second.ended(run).await["state"], "succeeded");
    let beats = arrived(&receiver, "/beats", 1).await;
    assert!(beats[0].body.is_empty() && beats[0].path.ends_with(TOKEN));
    let told = third.complete("notify", &json!({})).await;
    assert_eq!(told["result"], json!({ "status": 200 }), "{told:#}");
    let all = arrived(&receiver, "/alarms", 4).await;
    assert_eq!(said(&all[3])["type"], "notify.test");
    assert_ne!(checked_id(&all[3]), ids[0]);

    let said = ledger(&pool).await + &std::fs::read_to_string(site.dir.path().join("log")).unwrap();
    assert!(said.contains("the receiver answered 500"), "why it was tried again is there");
    for secret in [TOKEN, &SECRET["whsec_".len()..]] {
        assert!(!said.contains(secret), "{secret} is in the ledger or the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scrub_finds_is_told_and_a_receiver_that_is_away_holds_no_snapshot_up() {
    let site = growing_site(5_100, 5_099).await;
    let receiver = Receiver::start(&[]).await;
    let mut service = serve(&site, &receiver.url, "one").await;
    let manifest = service.cut().await;
    arrived(&receiver, "/beats", 1).await;
    let chunk = manifest.chunks.iter().find(|chunk| chunk.sealed).unwrap();
    let object = site.objects().join(snapshot::key::Key::Chunk(chunk.sha256.clone()).to_string());
    std::fs::write(&object, b"rotten").unwrap();
    service.complete("scrub", &json!({ "percent": 100 })).await;
    let posts = arrived(&receiver, "/alarms", 1).await;
    let message = said(&posts[0]);
    assert_eq!(message["type"], "scrub.findings");
    assert_eq!(message["data"]["findings"][0]["data"]["chunk"], chunk.file_name());
    assert!(message["text"].as_str().unwrap().contains("its object had sha256"), "{message}");

    service.kill().await;
    service = serve(&site, "http://127.0.0.1:1", "two").await;
    service.cut().await;
    let pool = site.database.pool().await;
    let waiting = "select exists (select from snapshots.step s join snapshots.run r on r.id = s.run_id
                   where r.workflow = 'notify' and s.state = 'ready' and s.error like '%does not answer%')";
    wait_until(PATIENCE, "the heartbeat waits for its next attempt", async || {
        sqlx::query_scalar(waiting).fetch_one(&pool).await.unwrap()
    })
    .await;
    service.cut().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_of_no_use_is_refused_at_the_start_without_being_shown() {
    let site = site_with_chain(60).await;
    let refused = async |name: &str, value: &str| {
        let mut command = site.command();
        command.args(["serve", "--json", "--listen", "127.0.0.1:0"]).env(name, value);
        crate::support::run(&mut command).await
    };
    for (name, value) in [("SNAPSHOTS_ALARM_WEBHOOK", "hooks.example/T0KEN"), ("SNAPSHOTS_HEARTBEAT_URL", "file:///T0KEN")] {
        let ran = refused(name, value).await;
        ran.error_with(2, &[name]);
        assert!(!ran.stdout.contains("T0KEN") && !ran.stderr.contains("T0KEN"));
    }
    refused("SNAPSHOTS_ALARM_SECRET_FILE", "/no/such/file").await.error_with(8, &["SNAPSHOTS_ALARM_SECRET_FILE"]);
}
