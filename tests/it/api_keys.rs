//! Beyond loopback nothing is changed without a key that allows it.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{ServiceProcess, Site, psql_file, shared_data, site, site_with_chain};

async fn serve_openly(site: &Site) -> ServiceProcess {
    let mut command = site.command();
    command.args(["serve", "--json", "--listen", "0.0.0.0:0", "--role", "api,worker"]).stdout(Stdio::piped());
    ServiceProcess::start(command).await
}

/// Runs `snapshots --json …` and returns the result of its last line.
async fn run(site: &Site, args: &[&str]) -> Value {
    let output = site.command().arg("--json").args(args).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    serde_json::from_str::<Value>(text.lines().last().unwrap()).unwrap()["result"].clone()
}

async fn start(service: &ServiceProcess, key: Option<&str>) -> u16 {
    let request = reqwest::Client::new().post(format!("{}/workflows/snapshot/runs", service.url)).json(&json!({}));
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_by_an_operators_key_alone_until_it_is_revoked() {
    let site = site_with_chain(1_000).await;
    let operator = run(&site, &["api-key", "create", "nightly", "--scope", "operator"]).await;
    let reader = run(&site, &["api-key", "create", "viewer"]).await;
    let service = serve_openly(&site).await;
    let key = operator["key"].as_str().unwrap();
    assert_eq!(start(&service, None).await, 401);
    assert_eq!(start(&service, Some("sk-sl_00000000000000000000000000000000")).await, 401);
    assert_eq!(start(&service, Some(reader["key"].as_str().unwrap())).await, 403);
    assert_eq!(start(&service, Some(key)).await, 202);
    assert_eq!(service.get("/snapshots").await.status(), 200, "reading needs no key");

    let listed = run(&site, &["api-key", "list"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(key), "the list shows a secret");
    let pool = site.database.pool().await;
    let stored: String =
        sqlx::query_scalar("select string_agg(k::text, ' ') from snapshots.api_key k").fetch_one(&pool).await.unwrap();
    assert!(!stored.contains(key), "the secret is at rest");

    run(&site, &["api-key", "revoke", operator["id"].as_str().unwrap()]).await;
    assert_eq!(start(&service, Some(key)).await, 401);
    let again = site.command().args(["api-key", "revoke", operator["id"].as_str().unwrap()]).output().await.unwrap();
    assert_eq!(again.status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_original_may_read_and_no_more() {
    let Some(data) = shared_data() else { return };
    let site = site().await;
    psql_file(site.database.url(), &data.join("secondlayer-feb-epoch3.sql.gz")).await;
    let service = serve_openly(&site).await;
    let key = "sk-sl_0123456789abcdef0123456789abcdef";
    assert_eq!(start(&service, Some(key)).await, 403);
    let read = reqwest::Client::new().get(format!("{}/snapshots", service.url)).bearer_auth(key).send().await.unwrap();
    assert_eq!(read.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_neither_a_proxy_nor_a_page_of_another_site_acts_as_the_operator() {
    let site = site_with_chain(1_000).await;
    let operator = run(&site, &["api-key", "create", "proxy", "--scope", "operator"]).await;
    let service = site.serve().await;
    let ask = async |method: reqwest::Method, path: &str, header: (&str, &str), key: Option<&Value>| {
        let request = reqwest::Client::new().request(method, format!("{}{path}", service.url)).header(header.0, header.1);
        let request = match key {
            Some(key) => request.bearer_auth(key.as_str().unwrap()),
            None => request.body("{}"),
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("www-authenticate"))
    };
    let (get, post) = (reqwest::Method::GET, reqwest::Method::POST);
    let proxied = [("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.1"), ("host", "snapshots.example")];
    let paged = [("origin", "https://page.example"), ("sec-fetch-site", "cross-site")];
    for header in proxied {
        assert_eq!(ask(get.clone(), "/runs", header, None).await, (401, true), "{header:?}");
        assert_eq!(ask(get.clone(), "/snapshots", header, None).await, (200, false), "{header:?}");
        assert_eq!(ask(get.clone(), "/runs", header, Some(&operator["key"])).await, (200, false), "{header:?}");
    }
    for header in proxied.into_iter().chain(paged) {
        assert_eq!(ask(post.clone(), "/workflows/snapshot/runs", header, None).await, (401, true), "{header:?}");
        assert_eq!(ask(post.clone(), "/new_block", header, None).await, (403, false), "{header:?}");
        assert_eq!(ask(post.clone(), "/new_mempool_tx", header, None).await, (403, false), "{header:?}");
    }
    assert_eq!(service.json("/runs").await["data"], json!([]), "nothing was started");
    let own = ("origin", service.url.as_str());
    assert_eq!(ask(post, "/workflows/snapshot/runs", own, None).await, (202, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ingest_role_is_not_opened_to_everybody() {
    let site = site().await;
    let refused = site.command().args(["serve", "--listen", "0.0.0.0:0"]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(6));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("--role api,worker,scheduler,deliver"));
}
