//! Who may ask what over HTTP. No request is seen here, only what matters of one.
//!
//! `/healthz`, `/readyz` and `/metrics` are for everybody. All else is for those who come from loopback or bring the
//! token. Where there is a token, whatever changes something needs it, from wherever it comes.

use std::net::IpAddr;

/// What matters of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub path: &'a str,
    /// Anything but GET and HEAD.
    pub changes: bool,
    pub peer: IpAddr,
    /// The token that is configured.
    pub token: Option<&'a str>,
    /// Header `Authorization`.
    pub authorization: Option<&'a str>,
    /// Header `Host`; `None` also where it is there twice.
    pub host: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub content_type: Option<&'a str>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status code.
    pub code: u16,
    pub why: &'static str,
}

/// The paths that tell nothing of the records.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Decides whether the request is answered.
///
/// # Errors
/// The code and the reason; neither says whether the path exists.
pub fn admit(asked: &Asked<'_>) -> Result<(), Refusal> {
    if !asked.changes && OPEN.contains(&asked.path) {
        return Ok(());
    }
    let refuse = |code, why| Err(Refusal { code, why });
    match (asked.token, asked.authorization) {
        (Some(token), Some(given)) => {
            if !bearer(given).is_some_and(|given| same(given, token)) {
                return refuse(
                    401,
                    "wrong token; send \"Authorization: Bearer\" and the api-token of the secrets file",
                );
            }
        }
        (token, _) => {
            // An IPv4 peer of an IPv6 socket is `::ffff:127.0.0.1`.
            if !asked.peer.to_canonical().is_loopback() {
                return match token {
                    Some(_) => refuse(
                        401,
                        "no token; send \"Authorization: Bearer\" and the api-token of the secrets file",
                    ),
                    None => refuse(
                        403,
                        "only loopback may ask this; ask from the machine itself, or set api-token in the secrets file",
                    ),
                };
            }
            if token.is_some() && asked.changes {
                return refuse(
                    401,
                    "no token; send \"Authorization: Bearer\" and the api-token of the secrets file",
                );
            }
            // DNS rebinding: a page of a foreign site whose name has come to mean loopback.
            if !asked.host.is_some_and(is_local_or_address) {
                return refuse(
                    403,
                    "the Host is neither localhost nor an IP address; ask http://127.0.0.1",
                );
            }
        }
    }
    if asked.changes {
        if !asked.host.is_some_and(is_local_or_address) {
            return refuse(
                403,
                "the Host is neither localhost nor an IP address; ask by address",
            );
        }
        if asked
            .origin
            .is_some_and(|origin| !is_own(origin, asked.host))
        {
            return refuse(403, "a page of another site asks; ask from a command line");
        }
        if !asked.content_type.is_some_and(is_json) {
            return refuse(
                415,
                "the content type is not JSON; send \"Content-Type: application/json\"",
            );
        }
    }
    Ok(())
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares in a time that depends on the lengths only.
fn same(a: &str, b: &str) -> bool {
    let differing = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |acc, (x, y)| std::hint::black_box(acc | (x ^ y)));
    a.len() == b.len() && differing == 0
}

fn is_local_or_address(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
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

    fn get(path: &str, peer: IpAddr) -> Asked<'_> {
        Asked {
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

    fn post(peer: IpAddr) -> Asked<'static> {
        Asked {
            changes: true,
            content_type: Some("application/json"),
            ..get("/v1/pause", peer)
        }
    }

    fn code(asked: Asked<'_>) -> u16 {
        admit(&asked).map_or_else(|refusal| refusal.code, |()| 200)
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
            code(Asked {
                path: "/metrics",
                ..post(FAR)
            }),
            403
        );
        assert_eq!(
            code(Asked {
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
        for (asked, peer) in [
            (get("/v1/status", FAR), FAR),
            (post(FAR), FAR),
            (post(LOCAL), LOCAL),
        ] {
            let asked = Asked {
                peer,
                token: Some("t0ken"),
                ..asked
            };
            assert_eq!(code(asked), 401);
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
                    code(Asked {
                        authorization: Some(authorization),
                        ..asked
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
            code(Asked {
                token: Some("t"),
                ..get("/v1/status", LOCAL)
            }),
            200
        );
        assert_eq!(
            code(Asked {
                token: Some("t"),
                authorization: Some("Bearer u"),
                ..get("/v1/status", LOCAL)
            }),
            401
        );
        assert_eq!(
            code(Asked {
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
            (Some("evil.example:8080"), 403),
            (Some("localhost.evil.example"), 403),
            (Some(""), 403),
            (None, 403),
        ] {
            assert_eq!(
                code(Asked {
                    host,
                    ..post(LOCAL)
                }),
                expect,
                "{host:?}"
            );
            assert_eq!(
                code(Asked {
                    host,
                    ..get("/v1/status", LOCAL)
                }),
                expect,
                "{host:?}"
            );
        }
        let with_token = Asked {
            token: Some("t"),
            authorization: Some("Bearer t"),
            host: Some("windrow.example"),
            ..get("/", FAR)
        };
        assert_eq!(code(with_token), 200);
        assert_eq!(
            code(Asked {
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
            code(Asked {
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
                code(Asked {
                    origin: Some(origin),
                    ..post(LOCAL)
                }),
                403,
                "{origin}"
            );
        }
        assert_eq!(
            code(Asked {
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
                code(Asked {
                    content_type,
                    ..post(LOCAL)
                }),
                415,
                "{content_type:?}"
            );
        }
    }
}
