//! The staging database is replaced whole, with no tenant's row that no rule names, and nothing else is ever touched.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::{Hold, Site, TestDatabase, add_tenants, database, runbook, site_with_chain, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

const RULES: &str = "
carry = ['accounts', 'api_keys']
[mask]
'accounts.email' = \"'user-' || left(id::text, 8) || '@staging.invalid'\"
";

/// Databases that begin with a name.
async fn databases(pool: &PgPool, prefix: &str) -> Vec<String> {
    let sql = "select datname::text from pg_database where starts_with(datname::text, $1) order by 1";
    sqlx::query_scalar(sql).bind(prefix).fetch_all(pool).await.unwrap()
}

async fn connect(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect(url).await.unwrap()
}

/// A URL of another database on the server of this one.
fn sibling(database: &TestDatabase, name: &str) -> String {
    let mut url = url::Url::parse(database.url()).unwrap();
    url.set_path(name);
    url.into()
}

/// A site, the name of its staging database, and its URL. The last is dropped with the server of the tests.
async fn staged() -> (Site, String, String) {
    let site = site_with_chain(300).await.with_flags(&["--confirmations", "0"]);
    add_tenants(&site.database.pool().await).await;
    // Shorter than the name of a test's database, so that what is made of it stays short as well.
    let name = format!("staging_{}", &site.database.name()[5..17]);
    let url = sibling(&site.database, &name);
    (site, name, url)
}

async fn count(pool: &PgPool, table: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}"))).fetch_one(pool).await.unwrap()
}

fn rules(site: &Site) -> String {
    let file = site.dir.path().join("rules.toml");
    std::fs::write(&file, RULES).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_is_replaced_with_what_rules_carry_over_masked_and_the_old_one_stays_a_day() {
    let (site, name, url) = staged().await;
    let pool = site.database.pool().await;
    let rules = rules(&site);
    let service = site.serve_with(&[("SNAPSHOTS_STAGING_URL", &url), ("SNAPSHOTS_STAGING_RULES_FILE", &rules)]).await;
    let manifest = service.cut().await;
    let first = service.complete("staging_refresh", &json!({})).await;
    assert_eq!((&first["result"]["database"], &first["result"]["before"]), (&json!(name), &Value::Null), "{first:#}");
    assert_eq!(first["result"]["blockHeight"], json!(manifest.block_height));
    let staging = connect(&url).await;
    assert_eq!(count(&staging, "public.accounts").await, 0, "tenants of production are in staging");
    assert_eq!(count(&staging, "public.blocks").await.unsigned_abs(), manifest.tables["blocks"].rows);
    sqlx::raw_sql("insert into public.accounts (email) values ('qa@example.test')").execute(&staging).await.unwrap();

    // Of somebody who likes such names.
    let foreign = format!("{name}_next_0123456789ab");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {foreign}"))).execute(&pool).await.unwrap();
    // Somebody is connected all the while.
    let second = service.complete("staging_refresh", &json!({})).await;
    let result = &second["result"];
    assert_eq!(result["rules"]["carried"], json!({ "accounts": 1, "api_keys": 0 }), "{result:#}");
    let old = result["before"].as_str().unwrap();
    assert_eq!(databases(&pool, &name).await, [name.clone(), foreign.clone(), old.to_owned()], "nothing foreign is dropped");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("drop database {foreign}"))).execute(&pool).await.unwrap();
    let staging = connect(&url).await;
    let emails: Vec<String> = sqlx::query_scalar("select email from public.accounts").fetch_all(&staging).await.unwrap();
    assert!(emails.len() == 1 && emails[0].ends_with("@staging.invalid"), "{emails:?}");
    let before = connect(&sibling(&site.database, old)).await;
    let kept: String = sqlx::query_scalar("select email from public.accounts").fetch_one(&before).await.unwrap();
    assert_eq!(kept, "qa@example.test", "the old database is as it was");

    let third = service.complete("staging_refresh", &json!({ "keepHours": 0 })).await;
    assert_eq!(third["result"]["dropped"], json!([old]), "{third:#}");
    assert_eq!(databases(&pool, &name).await.len(), 2);
    assert_eq!(count(&pool, "public.streams").await, 1, "production was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_is_killed_in_any_step_ends_as_one_refresh() {
    let (site, name, url) = staged().await;
    let pool = site.database.pool().await;
    let rules = rules(&site);
    let env = [("SNAPSHOTS_STAGING_URL", url.as_str()), ("SNAPSHOTS_STAGING_RULES_FILE", rules.as_str())];
    let mut service = site.serve_with(&env).await;
    service.cut().await;
    assert_eq!(workflows::staging_refresh::workflow().step_names(), ["restore", "mask", "switch"]);
    for (step, databases_after) in [("restore", 1), ("mask", 2), ("switch", 3)] {
        let hold = Hold::on_success(&pool, step).await;
        let run = service.begin("staging_refresh", &json!({})).await;
        hold.reached().await;
        service.kill().await;
        hold.abandon().await;
        service = site.serve_with(&env).await;
        let ended = service.ended(&run).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        let all = databases(&pool, &name).await;
        assert_eq!(all.len(), databases_after, "after the kill in {step}: {all:?}");
        assert!(!all.iter().any(|database| database.contains("_next_")), "{all:?}");
        let staging = connect(&url).await;
        assert!(count(&staging, "public.events").await > 0);
    }
}

/// Waits until a query about what goes on says yes.
async fn until(pool: &PgPool, what: &str, sql: &'static str, argument: &str) {
    wait_until(PATIENCE, what, async || sqlx::query_scalar(sql).bind(argument).fetch_one(pool).await.unwrap()).await;
}

/// Somebody waits for a lock with a statement like `$1`.
const WAITS: &str =
    "select exists (select from pg_stat_activity where application_name = 'snapshots staging' and wait_event_type = 'Lock'
                                        and query ilike $1)";
/// No session is left of the refresh that works on databases like `$1`.
const GONE: &str =
    "select not exists (select from pg_stat_activity where application_name = 'snapshots staging' and query ilike $1)";

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_killed_inside_its_transactions_has_masked_and_renamed_nothing_and_does_it_again() {
    let (site, name, url) = staged().await;
    let pool = site.database.pool().await;
    let rules = rules(&site);
    let env = [("SNAPSHOTS_STAGING_URL", url.as_str()), ("SNAPSHOTS_STAGING_RULES_FILE", rules.as_str())];
    let service = site.serve_with(&env).await;
    service.cut().await;
    service.complete("staging_refresh", &json!({})).await;
    let staging = connect(&url).await;
    sqlx::raw_sql("insert into public.accounts (email) values ('qa@example.test')").execute(&staging).await.unwrap();

    // Tables are emptied by then; rows that are carried over wait.
    let mut holder = staging.begin().await.unwrap();
    sqlx::raw_sql("lock table public.accounts in access exclusive mode").execute(&mut *holder).await.unwrap();
    let run = service.begin("staging_refresh", &json!({})).await;
    until(&pool, "the mask waits", WAITS, "copy%accounts%").await;
    service.kill().await;
    holder.rollback().await.unwrap();
    until(&pool, "the mask is given up", GONE, "%accounts%").await;
    let hold = Hold::on_success(&pool, "mask").await;
    let service = site.serve_with(&env).await;
    hold.reached().await;

    // The old database has stepped aside by then; the new one cannot take its name.
    let next = databases(&pool, &format!("{name}_next_")).await.pop().unwrap();
    let mut holder = pool.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("comment on database {next} is 'held'"))).execute(&mut *holder).await.unwrap();
    hold.release().await;
    until(&pool, "the second rename waits", WAITS, "comment on database%").await;
    service.kill().await;
    holder.rollback().await.unwrap();
    until(&pool, "the switch is given up", GONE, "comment on database%").await;
    assert_eq!(databases(&pool, &name).await, [name.clone(), next], "half a switch");

    let service = site.serve_with(&env).await;
    let ended = service.ended(&run).await;
    assert_eq!(ended["result"]["rules"]["carried"]["accounts"], 1, "{ended:#}");
    assert_eq!(databases(&pool, &name).await.len(), 2);
    let staging = connect(&url).await;
    let emails: Vec<String> = sqlx::query_scalar("select email from public.accounts").fetch_all(&staging).await.unwrap();
    assert!(emails.len() == 1 && emails[0].ends_with("@staging.invalid"), "{emails:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_role_names_who_is_connected_and_switches_when_they_are_gone_or_it_may_end_them() {
    let (site, name, url) = staged().await;
    let pool = site.database.pool().await;
    let (plain, tester) = (format!("plain_{name}"), format!("tester_{name}"));
    let sql = format!("create role {plain} login createdb; create role {tester} login");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
    let as_role = |role: &str| url.replace("postgres://postgres@", &format!("postgres://{role}@"));
    let service = site.serve_with(&[("SNAPSHOTS_STAGING_URL", &as_role(&plain))]).await;
    service.cut().await;
    service.complete("staging_refresh", &json!({})).await;
    let open = async |role: &str| {
        let options: PgConnectOptions = as_role(role).parse().unwrap();
        PgConnection::connect_with(&options.application_name("their tool")).await.unwrap()
    };
    let (mut own, mut theirs, above) = (open(&plain).await, open(&tester).await, open("postgres").await);
    let run = service.begin("staging_refresh", &json!({})).await;
    let refused = async |words: [&str; 2], attempts: i64| {
        let sql = "select a.error from snapshots.attempt a join snapshots.step s on s.id = a.step_id
                   where s.run_id = $1::uuid and s.name = 'switch' and a.no = $2 and a.outcome = 'retry'";
        let mut said: Option<String> = None;
        wait_until(PATIENCE, "the switch is refused", async || {
            said = sqlx::query_scalar(sql).bind(&run).bind(attempts).fetch_optional(&pool).await.unwrap();
            said.is_some()
        })
        .await;
        let said = said.unwrap();
        assert!(words.iter().all(|word| said.contains(word)) && said.contains("their tool"), "{said}");
        said
    };
    refused([&tester, &format!("grant pg_signal_backend to {plain}")], 1).await;
    assert!(own.ping().await.is_err() && theirs.ping().await.is_ok(), "only what the role may end is ended");
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("grant pg_signal_backend to {plain}"))).execute(&pool).await.unwrap();
    let said = refused(["superuser postgres", "no grant"], 2).await;
    assert!(!said.contains(&tester) && theirs.ping().await.is_err(), "{said}");
    above.close().await.unwrap();
    let ended = service.ended(&run).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    assert_eq!(databases(&pool, &name).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn production_and_what_no_refresh_made_are_refused() {
    let (site, name, url) = staged().await;
    let pool = site.database.pool().await;
    let other = database().await;
    let refused = async |url: &str| {
        let service = site.serve_with(&[("SNAPSHOTS_STAGING_URL", url)]).await;
        if service.get("/snapshots/latest").await.status() == 404 {
            service.cut().await;
        }
        let run = service.begin("staging_refresh", &json!({})).await;
        let ended = service.ended(&run).await;
        service.terminate().await;
        assert_eq!(ended["state"], "failed", "{ended:#}");
        ended["error"].as_str().unwrap().to_owned()
    };
    assert!(refused(site.database.url()).await.contains("indexed database"));
    let said = refused(&sibling(&site.database, other.name())).await;
    assert!(said.contains("not made by a staging refresh"), "{said}");
    assert_eq!(databases(&pool, other.name()).await, [other.name()]);
    assert_eq!(databases(&pool, &name).await, Vec::<String>::new());

    let file = site.dir.path().join("wrong.toml");
    std::fs::write(&file, "[mask]\n'accounts.emial' = \"'x'\"").unwrap();
    let env = [("SNAPSHOTS_STAGING_URL", url.as_str()), ("SNAPSHOTS_STAGING_RULES_FILE", file.to_str().unwrap())];
    let service = site.serve_with(&env).await;
    let run = service.begin("staging_refresh", &json!({})).await;
    let ended = service.ended(&run).await;
    assert!(ended["error"].as_str().unwrap().contains("accounts.emial"), "{ended:#}");
    assert!(!databases(&pool, &name).await.contains(&name), "it was switched to unmasked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runbook_does_what_it_says() {
    let (site, name, url) = staged().await;
    let book = runbook("staging-refresh");
    book.run("Set it up", site.dir.path(), &[]).await;
    let rules = site.dir.path().join("staging-rules.toml");
    let env = [("SNAPSHOTS_STAGING_URL", url.as_str()), ("SNAPSHOTS_STAGING_RULES_FILE", rules.to_str().unwrap())];
    let service = site.serve_with(&env).await;
    let first = service.cut().await;
    let second = service.cut().await;
    let env = [
        ("SNAPSHOTS_URL", service.url.as_str()),
        ("SNAPSHOTS_STAGING_URL", url.as_str()),
        ("SNAPSHOT", first.snapshot_id.as_str()),
    ];
    let made_of = async || book.run("Look at it", site.dir.path(), &env).await.stdout;
    book.run("Refresh", site.dir.path(), &env).await;
    let said = made_of().await;
    assert!(said.contains(&format!("at block {}", second.block_height)) && said.contains("staging refresh"), "{said}");
    assert!(said.contains(&second.path().to_string()), "{said}");
    book.run("Refresh to a snapshot of your choice", site.dir.path(), &env).await;
    let said = made_of().await;
    assert!(said.trim_end().ends_with(&format!("of {}", first.path())), "{said}");
    let _connected = connect(&url).await;
    book.run("Go back", site.dir.path(), &env).await;
    let said = made_of().await;
    assert!(said.trim_end().ends_with(&format!("of {}", second.path())), "{said}");
    assert_eq!(databases(&site.database.pool().await, &name).await, [name]);
    book.was_run();
}
