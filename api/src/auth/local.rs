//! Whether a request that reached loopback comes straight from a program of this machine.
//!
//! A browser posts what any site's page tells it to, and a reverse proxy passes on what anybody sends: both arrive from
//! 127.0.0.1, and neither speaks for the operator. Invariant: judged by what a page cannot set (`Host`, `Origin`, `Sec-*`; Fetch
//! standard, forbidden request-headers) and what proxies add. A proxy that says nothing of itself and rewrites `Host` is not seen.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, header};

/// What proxies say of whom they speak for: RFC 7239, RFC 9110 and the names before them.
const OF_PROXIES: [&str; 6] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"];

/// Why this request may be anybody's; `None` if it came straight here.
pub(super) fn stranger(request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    if OF_PROXIES.iter().any(|name| headers.contains_key(*name)) {
        return Some("it came through a proxy");
    }
    if !names_loopback(request) {
        return Some("its Host is not this machine's loopback, as behind a proxy or a rebound name");
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    (!reads && !of_own_site(headers)).then_some("it came from a browser's page of another site")
}

fn names_loopback(request: &Request) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter();
    let mut hosts = hosts.map(|host| host.to_str().ok().and_then(|host| host.parse().ok())).peekable();
    let of_uri = request.uri().authority();
    (hosts.peek().is_some() || of_uri.is_some())
        && hosts.all(|host| host.as_ref().is_some_and(is_loopback))
        && of_uri.is_none_or(is_loopback)
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// True of a page of this service, and of what is no browser: that sends neither header.
fn of_own_site(headers: &HeaderMap) -> bool {
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(|host| format!("http://{host}"));
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let mut sites = headers.get_all("sec-fetch-site").iter();
    origins.all(|origin| origin.to_str().ok().zip(own.as_deref()).is_some_and(|(origin, own)| origin.eq_ignore_ascii_case(own)))
        && sites.all(|site| site == "none" || site == "same-origin")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn known(method: Method, uri: &str, headers: &[(&str, &str)]) -> bool {
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri(uri), |request, (name, value)| request.header(*name, *value));
        stranger(&request.body(Body::empty()).unwrap()).is_none()
    }

    #[test]
    fn a_program_of_this_machine_is_known_by_any_name_of_loopback() {
        for host in ["127.0.0.1:3900", "127.1.2.3", "localhost:3900", "LOCALHOST", "[::1]:3900"] {
            assert!(known(Method::POST, "/runs", &[("host", host)]), "{host}");
        }
        for host in ["snapshots.example", "10.0.0.1:3900", "localhost.example", "127.0.0.1.example", "[::2]:3900", ""] {
            assert!(!known(Method::GET, "/runs", &[("host", host)]), "{host}");
        }
        assert!(!known(Method::GET, "/runs", &[]));
        assert!(!known(Method::GET, "http://snapshots.example/runs", &[("host", "localhost")]));
    }

    #[test]
    fn what_a_proxy_passes_on_is_anybodys() {
        for name in OF_PROXIES {
            assert!(!known(Method::GET, "/runs", &[("host", "localhost"), (name, "x")]), "{name}");
        }
    }

    #[test]
    fn a_page_changes_something_only_if_it_is_our_own() {
        let with = |method, name, value| known(method, "/runs", &[("host", "localhost:3900"), (name, value)]);
        for (name, value) in [("origin", "http://localhost:3900"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")]
        {
            assert!(with(Method::POST, name, value), "{name}: {value}");
        }
        let foreign = [
            ("origin", "http://localhost:8080"),
            ("origin", "https://localhost:3900"),
            ("origin", "null"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "cross-site"),
        ];
        for (name, value) in foreign {
            assert!(!with(Method::POST, name, value), "{name}: {value}");
            assert!(with(Method::GET, name, value), "a page of another site cannot read the answer");
        }
    }
}
