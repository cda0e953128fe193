//! Every refusal has the one shape of RFC 9457, whoever in the stack refuses.

use reqwest::Method;
use serde_json::Value;

use crate::support::{ServiceProcess, site};

async fn problem(service: &ServiceProcess, method: Method, path: &str, body: Vec<u8>) -> (u16, Value) {
    let request = reqwest::Client::new().request(method, format!("{}{path}", service.url)).body(body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    assert!(answer.headers().contains_key("x-request-id"), "{path}");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status, "{path}");
    for part in ["type", "title", "detail", "error", "code"] {
        assert!(problem[part].as_str().is_some_and(|text| !text.is_empty()), "{path}: {problem}");
    }
    (status, problem)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_with_a_code_and_words() {
    let site = site().await;
    let service = site.serve().await;
    let no_run = "/runs/00000000-0000-0000-0000-000000000000";
    for (method, path, body, status) in [
        (Method::GET, "/nothing/here", vec![], 404),
        (Method::GET, "/runs/not-an-id", vec![], 404),
        (Method::GET, no_run, vec![], 404),
        (Method::GET, "/snapshots/latest", vec![], 404),
        (Method::GET, "/snapshots/1999-01-01", vec![], 404),
        (Method::GET, "/snapshots/%00", vec![], 404),
        (Method::GET, "/snapshots/%FF", vec![], 400),
        (Method::GET, "/%00/latest", vec![], 404),
        (Method::GET, "/mainnet/latest", vec![], 404),
        (Method::GET, "/mainnet/latest.tar.zst", vec![], 404),
        (Method::GET, "/snapshots?limit=many", vec![], 400),
        (Method::GET, "/snapshots?limit=0", vec![], 400),
        (Method::GET, "/snapshots?limit=1001", vec![], 400),
        (Method::GET, "/snapshots?cursor=zz", vec![], 400),
        (Method::GET, "/snapshots?cursor=002f00", vec![], 400),
        (Method::GET, "/snapshots?network=%00", vec![], 400),
        (Method::POST, "/snapshots", vec![], 405),
        (Method::GET, "/workflows/snapshot/runs", vec![], 405),
        (Method::POST, "/workflows/nothing/runs", vec![], 404),
        (Method::POST, "/workflows/snapshot/runs", b"{\"network\":".to_vec(), 400),
        (Method::POST, "/workflows/snapshot/runs", b"[1]".to_vec(), 422),
        (Method::POST, "/workflows/snapshot/runs", b"{\"network\":\"a\\u0000b\"}".to_vec(), 422),
        (Method::POST, "/workflows/snapshot/runs", vec![b' '; 2 << 20], 413),
        (Method::POST, "/new_blocks", b"{}".to_vec(), 404),
        (Method::GET, "/new_block", vec![], 405),
    ] {
        let (found, problem) = problem(&service, method.clone(), path, body).await;
        assert_eq!(found, status, "{method} {path}: {problem}");
    }
    let (_, under_api) = problem(&service, Method::GET, "/api/snapshots/latest", vec![]).await;
    assert_eq!(under_api["code"], "SNAPSHOT_NOT_FOUND");
}
