//! Decides who may ask what over HTTP. It sees only those parts of a request that matter for this.
//!
//! - `/healthz`, `/readyz` and `/metrics` are open to everybody.
//! - Everything else needs a peer on loopback, or the token.
//! - Where a token is configured, requests that change something need it, also those from loopback.

use crate::settings::parse::{in_brackets, split_host_port};
use std::net::IpAddr;

/// The parts of a request that matter here. A header is `None` where the request does not have it.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The path, without the query.
    pub path: &'a str,
    /// The method is neither GET nor HEAD.
    pub changes: bool,
    /// The address that the connection comes from.
    pub peer: IpAddr,
    /// The token that is configured, if any.
    pub token: Option<&'a str>,
    /// Header `Authorization`.
    pub authorization: Option<&'a str>,
    /// Header `Host`; `None` also where the request has it twice.
    pub host: Option<&'a str>,
    /// Header `Origin`.
    pub origin: Option<&'a str>,
    /// Header `Content-Type`; `None` also where the request has it twice.
    pub content_type: Option<&'a str>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status code.
    pub code: u16,
    /// The reason and the next step.
    pub why: &'static str,
}

/// These paths tell nothing about the records.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
const WRONG_TOKEN: &str =
    "wrong token; send \"Authorization: Bearer\" and the api-token of the secrets file";
const NO_TOKEN: &str =
    "no token; send \"Authorization: Bearer\" and the api-token of the secrets file";

/// Decides whether the request is answered.
///
/// # Errors
/// The code and the reason. Neither says whether the path exists.
pub fn admit(request: &RequestFacts<'_>) -> Result<(), Refusal> {
    if !request.changes && OPEN.contains(&request.path) {
        return Ok(());
    }
    check_peer(request)?;
    if request.changes {
        check_site(request)?;
    }
    Ok(())
}

fn refuse(code: u16, why: &'static str) -> Result<(), Refusal> {
    Err(Refusal { code, why })
}

/// The peer brings the token, or is on loopback and need not bring it.
fn check_peer(request: &RequestFacts<'_>) -> Result<(), Refusal> {
    match (request.token, request.authorization) {
        (Some(token), Some(given)) => {
            if !bearer(given).is_some_and(|given| same(given, token)) {
                return refuse(401, WRONG_TOKEN);
            }
        }
        (token, _) => {
            // An IPv4 peer of an IPv6 socket is `::ffff:127.0.0.1`.
            if !request.peer.to_canonical().is_loopback() {
                return match token {
                    Some(_) => refuse(401, NO_TOKEN),
                    None => refuse(
                        403,
                        "only loopback may ask this; ask from the machine itself, \
                         or set api-token in the secrets file",
                    ),
                };
            }
            if token.is_some() && request.changes {
                return refuse(401, NO_TOKEN);
            }
            // Against DNS rebinding: a page of a foreign site may have a name that now resolves to
            // loopback. Its requests carry that name as their Host.
            if !request.host.is_some_and(is_local_or_address) {
                return refuse(
                    403,
                    "the Host is neither localhost nor an IP address; ask http://127.0.0.1",
                );
            }
        }
    }
    Ok(())
}

/// The request does not come from a page of another site, which a browser would send in the name of
/// its user. Such a page cannot choose its `Origin`, and cannot send JSON without being asked
/// first.
fn check_site(request: &RequestFacts<'_>) -> Result<(), Refusal> {
    if !request.host.is_some_and(is_local_or_address) {
        return refuse(
            403,
            "the Host is neither localhost nor an IP address; ask by address",
        );
    }
    if request
        .origin
        .is_some_and(|origin| !is_own(origin, request.host))
    {
        return refuse(403, "a page of another site asks; ask from a command line");
    }
    if !request.content_type.is_some_and(is_json) {
        return refuse(
            415,
            "the content type is not JSON; send \"Content-Type: application/json\"",
        );
    }
    Ok(())
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares two texts in a time that depends on their lengths alone, so that nobody can find out a
/// token character by character.
fn same(a: &str, b: &str) -> bool {
    let differing = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |acc, (x, y)| std::hint::black_box(acc | (x ^ y)));
    a.len() == b.len() && differing == 0
}

fn is_local_or_address(host: &str) -> bool {
    let (name, _) = split_host_port(host);
    let name = in_brackets(name).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn is_own(origin: &str, host: Option<&str>) -> bool {
    origin
        .strip_prefix("http://")
        .is_some_and(|origin| host.is_some_and(|host| origin.eq_ignore_ascii_case(host)))
}

fn is_json(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

    fn get(path: &str, peer: IpAddr) -> RequestFacts<'_> {
        RequestFacts {
            path,
            changes: false,
            peer,
            token: None,
            authorization: None,
            host: Some("10.1.63.9:8080"),
            origin: None,
            content_type: None,
        }
    }

    fn post(peer: IpAddr) -> RequestFacts<'static> {
        RequestFacts {
            changes: true,
            content_type: Some("application/json"),
            ..get("/v1/pause", peer)
        }
    }

    fn code(request: RequestFacts<'_>) -> u16 {
        admit(&request).map_or_else(|refusal| refusal.code, |()| 200)
    }

    #[test]
    fn without_a_token_others_than_loopback_see_health_and_metrics_only() {
        for path in OPEN {
            assert_eq!(code(get(path, FAR)), 200);
        }
        for path in [
            "/",
            "/v1/status",
            "/v1/tables/newtable/rows",
            "/v1/windows",
            "/nowhere",
            "/metrics/",
        ] {
            assert_eq!(code(get(path, FAR)), 403, "{path}");
            assert_eq!(code(get(path, LOCAL)), 200, "{path}");
        }
        assert_eq!(code(post(FAR)), 403);
        assert_eq!(
            code(RequestFacts {
                path: "/metrics",
                ..post(FAR)
            }),
            403
        );
        assert_eq!(
            code(RequestFacts {
                authorization: Some("Bearer x"),
                ..get("/", FAR)
            }),
            403
        );
        assert_eq!(code(get("/", "::ffff:127.0.0.1".parse().unwrap())), 200);
        assert_eq!(code(get("/", "::1".parse().unwrap())), 200);
    }

    #[test]
    fn the_token_opens_all_to_all() {
        for (request, peer) in [
            (get("/v1/status", FAR), FAR),
            (post(FAR), FAR),
            (post(LOCAL), LOCAL),
        ] {
            let request = RequestFacts {
                peer,
                token: Some("t0ken"),
                ..request
            };
            assert_eq!(code(request), 401);
            for (authorization, expect) in [
                ("Bearer t0ken", 200),
                ("bearer t0ken", 200),
                ("Bearer t0kex", 401),
                ("Bearer t0ke", 401),
                ("Bearer t0kenn", 401),
                ("Basic t0ken", 401),
                ("t0ken", 401),
                ("", 401),
            ] {
                assert_eq!(
                    code(RequestFacts {
                        authorization: Some(authorization),
                        ..request
                    }),
                    expect,
                    "{authorization}"
                );
            }
        }
    }

    #[test]
    fn with_a_token_loopback_reads_without_and_changes_with_it() {
        assert_eq!(
            code(RequestFacts {
                token: Some("t"),
                ..get("/v1/status", LOCAL)
            }),
            200
        );
        assert_eq!(
            code(RequestFacts {
                token: Some("t"),
                authorization: Some("Bearer u"),
                ..get("/v1/status", LOCAL)
            }),
            401
        );
        assert_eq!(
            code(RequestFacts {
                token: Some("t"),
                ..post(LOCAL)
            }),
            401
        );
        assert_eq!(code(post(LOCAL)), 200);
    }

    #[test]
    fn a_name_that_was_bound_to_loopback_is_refused() {
        for (host, expect) in [
            (Some("localhost"), 200),
            (Some("LOCALHOST:8080"), 200),
            (Some("127.0.0.1:8080"), 200),
            (Some("[::1]:8080"), 200),
            (Some("[::1]"), 200),
            (Some("[::1"), 403),
            (Some("[::1].evil.example:8080"), 403),
            (Some("evil.example:8080"), 403),
            (Some("localhost.evil.example"), 403),
            (Some(""), 403),
            (None, 403),
        ] {
            assert_eq!(
                code(RequestFacts {
                    host,
                    ..post(LOCAL)
                }),
                expect,
                "{host:?}"
            );
            assert_eq!(
                code(RequestFacts {
                    host,
                    ..get("/v1/status", LOCAL)
                }),
                expect,
                "{host:?}"
            );
        }
        let with_token = RequestFacts {
            token: Some("t"),
            authorization: Some("Bearer t"),
            host: Some("windrow.example"),
            ..get("/", FAR)
        };
        assert_eq!(code(with_token), 200);
        assert_eq!(
            code(RequestFacts {
                token: Some("t"),
                authorization: Some("Bearer t"),
                host: Some("windrow.example"),
                ..post(FAR)
            }),
            403
        );
    }

    #[test]
    fn foreign_pages_and_forms_cannot_post() {
        assert_eq!(
            code(RequestFacts {
                origin: Some("http://10.1.63.9:8080"),
                ..post(LOCAL)
            }),
            200
        );
        for origin in [
            "http://evil.example",
            "null",
            "https://10.1.63.9:8080",
            "http://10.1.63.9",
            "",
        ] {
            assert_eq!(
                code(RequestFacts {
                    origin: Some(origin),
                    ..post(LOCAL)
                }),
                403,
                "{origin}"
            );
        }
        assert_eq!(
            code(RequestFacts {
                content_type: Some("Application/JSON; charset=utf-8"),
                ..post(LOCAL)
            }),
            200
        );
        for content_type in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/jsonp"),
        ] {
            assert_eq!(
                code(RequestFacts {
                    content_type,
                    ..post(LOCAL)
                }),
                415,
                "{content_type:?}"
            );
        }
    }
}
