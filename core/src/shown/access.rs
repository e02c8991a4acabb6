//! Decides who may ask what over HTTP. It sees only those parts of a request that matter for this.
//!
//! - `/healthz`, `/readyz` and `/metrics` are open to everybody.
//! - Where a token is configured, everything else needs it, from wherever it is asked: behind a
//!   proxy in the same pod, everybody comes from loopback.
//! - Where no token is configured, everything else needs a peer on this machine, and no sign that
//!   somebody else stands behind it.

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
    /// The address of this machine that the connection came to; `None` where it is not known.
    pub local: Option<IpAddr>,
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
    /// The request has a header that only proxies add: see [`is_of_a_proxy`].
    pub forwarded: bool,
}

/// Who asks, where the question is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// May be told everything.
    Trusted,
    /// May be told nothing that names users, hosts or paths.
    Stranger,
}

/// Whether a header of this name, in lower case, says that a proxy has passed the request on.
#[must_use]
pub fn is_of_a_proxy(name: &str) -> bool {
    ["forwarded", "via", "x-real-ip"].contains(&name)
        || ["x-forwarded-", "x-envoy-"]
            .iter()
            .any(|begin| name.starts_with(begin))
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

/// Decides whether the request is answered, and to whom.
///
/// # Errors
/// The code and the reason. Neither says whether the path exists.
pub fn admit(request: &RequestFacts<'_>) -> Result<Asker, Refusal> {
    let peer = check_peer(request);
    if !request.changes && OPEN.contains(&request.path) {
        return Ok(match peer {
            Ok(()) => Asker::Trusted,
            Err(_) => Asker::Stranger,
        });
    }
    peer?;
    if request.changes {
        check_site(request)?;
    }
    Ok(Asker::Trusted)
}

fn refuse(code: u16, why: &'static str) -> Result<(), Refusal> {
    Err(Refusal { code, why })
}

/// The peer brings the token; without one it is a program on this machine.
fn check_peer(request: &RequestFacts<'_>) -> Result<(), Refusal> {
    if let Some(token) = request.token {
        return match request.authorization.map(bearer) {
            Some(Some(given)) if same(given, token) => Ok(()),
            Some(_) => refuse(401, WRONG_TOKEN),
            None => refuse(401, NO_TOKEN),
        };
    }
    if !is_this_machine(request) {
        return refuse(
            403,
            "only this machine may ask this; ask from the machine itself, \
             or set api-token in the secrets file",
        );
    }
    if request.forwarded {
        return refuse(
            403,
            "a proxy passes this on, so who asks is not known; set api-token in the secrets file",
        );
    }
    // Against DNS rebinding: a page of a foreign site may have a name that now resolves to
    // loopback. Its requests carry that name as their Host. Such a page cannot know a token.
    if !request.host.is_some_and(is_local_or_address) {
        return refuse(
            403,
            "the Host is neither localhost nor an IP address; ask http://127.0.0.1",
        );
    }
    Ok(())
}

/// Whether a program on this machine asks. With `http: 10.1.2.3:8080` such a program comes from
/// 10.1.2.3 to 10.1.2.3, because the system takes the same address for both ends. Nobody else's
/// connection does: the system drops packets from outside that bear an address of its own.
fn is_this_machine(request: &RequestFacts<'_>) -> bool {
    // An IPv4 peer of an IPv6 socket is `::ffff:127.0.0.1`.
    let peer = request.peer.to_canonical();
    let local = request.local.map(|local| local.to_canonical());
    peer.is_loopback() || local == Some(peer)
}

/// The request does not come from a page of another site, which a browser would send in the name of
/// its user. Such a page cannot choose its `Origin`, and cannot send JSON without being asked
/// first.
fn check_site(request: &RequestFacts<'_>) -> Result<(), Refusal> {
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
            local: None,
            token: None,
            authorization: None,
            host: Some("10.1.63.9:8080"),
            origin: None,
            content_type: None,
            forwarded: false,
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
        admit(&request).map_or_else(|refusal| refusal.code, |_| 200)
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
    fn this_machine_is_known_by_its_own_address_too() {
        let to = |peer: &str, local: &str| RequestFacts {
            local: Some(local.parse().unwrap()),
            ..get("/v1/status", peer.parse().unwrap())
        };
        for (peer, local, expect) in [
            ("10.1.2.3", "10.1.2.3", 200),
            ("::ffff:10.1.2.3", "10.1.2.3", 200),
            ("fd00::7", "fd00::7", 200),
            ("10.1.2.4", "10.1.2.3", 403),
            ("fd00::8", "fd00::7", 403),
            ("127.0.0.1", "127.0.0.1", 200),
        ] {
            assert_eq!(code(to(peer, local)), expect, "{peer} to {local}");
        }
        let own = to("10.1.2.3", "10.1.2.3");
        for refused in [
            RequestFacts {
                forwarded: true,
                ..own
            },
            RequestFacts {
                host: Some("evil.example"),
                ..own
            },
            RequestFacts {
                changes: true,
                origin: Some("http://evil.example"),
                ..own
            },
        ] {
            assert_eq!(code(refused), 403, "{refused:?}");
        }
        let with_token = RequestFacts {
            token: Some("t"),
            ..own
        };
        assert_eq!(code(with_token), 401);
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
    fn behind_a_proxy_of_the_same_pod_nobody_is_loopback() {
        for (token, authorization, expect) in [
            (Some("t"), None, 401),
            (Some("t"), Some("Bearer u"), 401),
            (Some("t"), Some("Bearer t"), 200),
            (None, None, 200),
        ] {
            for request in [get("/v1/status", LOCAL), get("/", LOCAL), post(LOCAL)] {
                let asked = RequestFacts {
                    token,
                    authorization,
                    ..request
                };
                assert_eq!(code(asked), expect, "{asked:?}");
                let forwarded = RequestFacts {
                    forwarded: true,
                    ..asked
                };
                let expect = if token.is_none() { 403 } else { expect };
                assert_eq!(code(forwarded), expect, "{forwarded:?}");
            }
        }
        for (name, expect) in [
            ("x-forwarded-for", true),
            ("x-forwarded-proto", true),
            ("forwarded", true),
            ("via", true),
            ("x-real-ip", true),
            ("x-envoy-external-address", true),
            ("x-request-id", false),
            ("host", false),
        ] {
            assert_eq!(is_of_a_proxy(name), expect, "{name}");
        }
    }

    #[test]
    fn strangers_are_told_apart_on_open_paths() {
        let of_token = |authorization| RequestFacts {
            token: Some("t"),
            authorization,
            ..get("/readyz", LOCAL)
        };
        for (request, expect) in [
            (get("/readyz", LOCAL), Asker::Trusted),
            (get("/readyz", FAR), Asker::Stranger),
            (of_token(None), Asker::Stranger),
            (of_token(Some("Bearer u")), Asker::Stranger),
            (of_token(Some("Bearer t")), Asker::Trusted),
            (
                RequestFacts {
                    forwarded: true,
                    ..get("/readyz", LOCAL)
                },
                Asker::Stranger,
            ),
            (
                RequestFacts {
                    host: Some("evil.example"),
                    ..get("/readyz", LOCAL)
                },
                Asker::Stranger,
            ),
        ] {
            assert_eq!(admit(&request), Ok(expect), "{request:?}");
        }
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
        let changes = RequestFacts {
            token: Some("t"),
            authorization: Some("Bearer t"),
            host: Some("windrow.example"),
            ..post(FAR)
        };
        assert_eq!(code(changes), 200, "the token cannot be known to a page");
        let of_a_page = RequestFacts {
            origin: Some("http://evil.example"),
            ..changes
        };
        assert_eq!(code(of_a_page), 403);
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
