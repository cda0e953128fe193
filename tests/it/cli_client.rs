//! `create`, `list`, `show`: what they print, and how they fail.

use serde_json::json;

use crate::support::{Ran, ServiceProcess, Site, bare_command, run, site_with_chain, wait_until};

/// A command that is told nothing but the service's address.
async fn at(service: &ServiceProcess, args: &[&str]) -> Ran {
    run(bare_command(args).args(["--json", "--url", &service.url])).await
}

/// A command that is told the data directory, and speaks to a person.
async fn in_dir(site: &Site, args: &[&str]) -> Ran {
    run(bare_command(args).args(["--data-dir", site.dir.path().to_str().unwrap()])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn create_list_and_show_agree_for_people_and_for_programs() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    assert_eq!(at(&service, &["list"]).await.result(), json!([]));
    at(&service, &["show"]).await.error_with(4, &["no snapshot", "published"]);
    at(&service, &["show", "1999-01-01"]).await.error_with(4, &["1999-01-01", "snapshots list"]);
    at(&service, &["show", "../runs"]).await.error_with(2, &["../runs"]);

    let created = at(&service, &["create", "--wait"]).await.result();
    let id = created["snapshot"]["id"].as_str().unwrap();
    let shown = at(&service, &["show"]).await.result();
    assert_eq!(shown, at(&service, &["show", id]).await.result());
    assert_eq!((&shown["snapshot_id"], &shown["block_height"]), (&json!(id), &created["snapshot"]["blockHeight"]));

    let started = at(&service, &["create"]).await.result();
    let run = started["runId"].as_str().unwrap();
    assert_eq!(service.ended(run).await["state"], "succeeded");
    let listed = at(&service, &["list"]).await.result();
    let ids: Vec<&str> = listed.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&format!("{id}.2"), id]);
    assert_eq!(at(&service, &["list", "--network", "testnet"]).await.result(), json!([]));

    let said = in_dir(&site, &["create", "--wait"]).await;
    assert!(said.code == Some(0) && said.stdout.starts_with(&format!("published {id}.3 at height ")), "{}", said.stdout);
    let said = in_dir(&site, &["list"]).await;
    assert!(said.stdout.starts_with("NETWORK") && said.stdout.lines().count() == 4, "{}", said.stdout);
    let said = in_dir(&site, &["show", id]).await;
    assert!(
        said.stdout.contains(shown["block_hash"].as_str().unwrap()) && said.stdout.contains("transactions"),
        "{}",
        said.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn create_while_a_run_goes_on_is_a_conflict_and_a_run_that_fails_says_why() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let pool = site.database.pool().await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("lock table public.events in access exclusive mode").execute(&mut *holder).await.unwrap();
    let first = at(&service, &["create"]).await.result();
    at(&service, &["create", "--wait"]).await.error_with(7, &[first["runId"].as_str().unwrap(), "under way"]);
    holder.rollback().await.unwrap();
    service.ended(first["runId"].as_str().unwrap()).await;

    at(&service, &["create", "--network", "testnet"]).await.error(2);
    // The counters by which a snapshot notices writes to old heights may lag by seconds.
    let lose_a_block = "begin; delete from public.events where block_height = 50;
        delete from public.transactions where block_height = 50; delete from public.blocks where height = 50;
        select pg_stat_force_next_flush(); commit";
    sqlx::raw_sql(lose_a_block).execute(&pool).await.unwrap();
    at(&service, &["create", "--wait"]).await.error_with(1, &["gaps", "first 50", "latest"]);
    let said = in_dir(&site, &["create", "--wait"]).await;
    assert!(said.code == Some(1) && said.stdout.is_empty(), "{}", said.stdout);
    assert!(said.stderr.contains("error: the run failed: ") && said.stderr.contains(" help: "), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_a_command_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = dir.path().to_str().unwrap();
    for command in [&["list"][..], &["show"], &["create"], &["download"]] {
        let told = run(bare_command(command).args(["--json", "--data-dir", nothing])).await;
        told.error_with(9, &[nothing, "snapshots serve", "--url"]);
    }
    // The port of a listener that is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    run(bare_command(&["list", "--json", "--url", &url])).await.error_with(9, &[&url, "snapshots serve"]);
    run(bare_command(&["list", "--json", "--url", "nonsense"])).await.error(2);

    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    service.kill().await;
    wait_until(std::time::Duration::from_secs(10), "the killed service is missed", async || {
        in_dir(&site, &["list"]).await.code == Some(9)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_line_that_makes_no_sense_ends_with_two_for_people_and_programs() {
    let nonsense = [
        &["lst"][..],
        &[],
        &["list", "--nonsense"],
        &["serve", "--listen", "here"],
        &["serve", "--claim", "gpu=3"],
        &["serve", "--claim", "io=0"],
        &["download", "a/b"],
        &["ingest"],
    ];
    for args in nonsense {
        let ran = run(&mut bare_command(args)).await;
        assert!(ran.code == Some(2) && ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args:?}");
        run(bare_command(args).arg("--json")).await.error(2);
    }
    let version = run(&mut bare_command(&["--version"])).await;
    assert!(version.code == Some(0) && version.stdout.starts_with("snapshots "), "{}", version.stdout);
}
