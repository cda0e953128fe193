//! kill -9 in the last steps of a restore, when all rows are there: it is not proved before the same command has ended.

use std::process::Stdio;
use std::time::Duration;

use sqlx::PgPool;
use tokio::process::Command;

use crate::support::{Hold, Site, TestDatabase, add_tenants, database, published, run, site_with_chain, vault, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a query like this one of a restore waits for a lock in this database.
async fn waits(pool: &PgPool, query: &str) -> bool {
    let sql = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query ilike $1
                   and application_name = 'snapshots restore' and datname = current_database())";
    sqlx::query_scalar(sql).bind(query).fetch_one(pool).await.unwrap()
}

/// Kills a restore as it validates a foreign key: it has read both tables, and nobody knows. What `meanwhile` locks stops it later instead.
struct Killed<'a> {
    command: &'a (dyn Fn() -> Command + Sync),
    pool: PgPool,
}

impl Killed<'_> {
    async fn validating(&self) {
        let hold = Hold::on_definition(&self.pool, "%validate constraint%").await;
        let mut child = (self.command)().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        hold.reached().await;
        child.kill().await.unwrap();
        hold.abandon().await;
    }

    /// Kills it when a statement like `query` waits for `lock`, which is taken while a foreign key is validated.
    async fn later(&self, lock: &'static str, query: &str) {
        let hold = Hold::on_definition(&self.pool, "%validate constraint%").await;
        let mut child = (self.command)().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        hold.reached().await;
        let mut holder = self.pool.begin().await.unwrap();
        sqlx::raw_sql(lock).execute(&mut *holder).await.unwrap();
        hold.release().await;
        wait_until(PATIENCE, "the restore waits", async || waits(&self.pool, query).await).await;
        child.kill().await.unwrap();
        holder.rollback().await.unwrap();
    }
}

/// What is left of a killed restore is not called proved; the same command ends it.
async fn ends_proved(site: &Site, target: &TestDatabase, killed: &Killed<'_>, deep: bool) {
    let mut verify = site.client("verify", &site.published(), target.url());
    let unfinished = run(verify.arg("--database").args(deep.then_some("--deep"))).await;
    unfinished.error_with(5, &["has come to its end", "run `snapshots restore` again"]);
    let result = run((killed.command)()).await.result();
    assert_eq!((&result["outcome"]["rows"], &result["proved"]), (&0.into(), &true.into()), "{result:#}");
    let mut verify = site.client("verify", &site.published(), target.url());
    assert_eq!(run(verify.arg("--database").args(deep.then_some("--deep"))).await.result()["proved"], true);
}

async fn killed_late(flags: &[&str], how: impl AsyncFnOnce(&Killed<'_>)) {
    let (site, _) = published(600).await;
    let target = database().await;
    let command = || {
        let mut command = site.client("restore", &site.published(), target.url());
        command.args(flags);
        command
    };
    let killed = Killed { command: &command, pool: target.pool().await };
    how(&killed).await;
    ends_proved(&site, &target, &killed, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_foreign_key_is_validated_it_validates_it_again() {
    killed_late(&[], async |killed| {
        killed.validating().await;
        let left = "select count(*) from pg_constraint where contype = 'f' and not convalidated";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&killed.pool).await.unwrap();
        assert!(left > 0, "it was killed too late");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_vacuums_it_vacuums_again() {
    // Neither keys nor rows need this lock any more.
    let lock = "lock table public.index_progress in share update exclusive mode";
    killed_late(&[], async |killed| killed.later(lock, "vacuum%index_progress%").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_verifies_it_verifies_again() {
    let lock = "lock table public.index_progress in access exclusive mode";
    killed_late(&["--skip-vacuum"], async |killed| killed.later(lock, "select%index_progress%").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_everything_killed_before_its_work_under_way_was_settled_settles_it_once() {
    let site = site_with_chain(300).await;
    add_tenants(&site.database.pool().await).await;
    let vault = vault(&site).await;
    let service = site.serve_with(&vault.env()).await;
    service.complete("full_profile", &serde_json::json!({})).await;
    service.terminate().await;
    let target = database().await;
    let command = || vault.restore(&site, target.url());
    let killed = Killed { command: &command, pool: target.pool().await };
    killed.later("select from public.jobs for update", "%public.jobs%").await;
    let settled = "select count(*) from snapshots_restore.definition where name = 'settle'";
    assert_eq!(sqlx::query_scalar::<_, i64>(settled).fetch_one(&killed.pool).await.unwrap(), 0, "it was killed too late");
    ends_proved(&site, &target, &killed, false).await;
    let held = "select count(*) from public.jobs where locked_by is not null";
    assert_eq!(sqlx::query_scalar::<_, i64>(held).fetch_one(&killed.pool).await.unwrap(), 0);
}
