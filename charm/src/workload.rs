//! What the running windrow says, asked over HTTP on loopback, which the containers of a pod share.
//!
//! The answers are passed on; this file decides nothing.

use crate::facts::TokenFault;
use crate::hookcmd::HookCommands;
use crate::rendered::HTTP_PORT;
use crate::secrets::usable_secret;
use anyhow::{Context as _, Result};
use std::time::Duration;
use ureq::RequestBuilder;
use windrow_core::settings::config::Secret;
use windrow_core::shown::status::Status;

/// How long we wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);

/// How long we wait for the answer to a question.
const GET: Duration = Duration::from_secs(5);

/// How long we wait until something is done.
const POST: Duration = Duration::from_secs(15);

/// The most that an answer may hold. Lists can be long.
const ANSWER_MAX_BYTES: u64 = 8 << 20;

/// An answer of windrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status code.
    pub code: u16,
    /// The body, which is JSON.
    pub text: String,
}

impl Answer {
    /// Whether windrow did what it was asked to do.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..=299).contains(&self.code)
    }
}

/// Reads one path, such as `/v1/status`. `token` is the one that windrow wants, where it has one.
///
/// # Errors
/// Nobody has answered in time.
pub fn get(path: &str, token: Option<&Secret>) -> Result<Answer> {
    read_answer(with_token(agent(GET).get(&url(path)), token).call())
}

/// Asks for something to be done, such as `/v1/pause`; `query` follows the path, encoded as it
/// must be. `token` is the content of the secret of option `api-token`, where that option is set.
///
/// # Errors
/// Nobody has answered in time.
pub fn post(path: &str, query: &[(&str, String)], token: Option<&Secret>) -> Result<Answer> {
    let query = query.iter().map(|(name, value)| (*name, value));
    let request = agent(POST)
        .post(&url(path))
        .query_pairs(query)
        .content_type("application/json");
    read_answer(with_token(request, token).send("{}"))
}

fn with_token<B>(request: RequestBuilder<B>, token: Option<&Secret>) -> RequestBuilder<B> {
    match token {
        Some(token) => request.header("Authorization", format!("Bearer {}", token.expose())),
        None => request,
    }
}

/// What the running windrow says about itself; `None` where it does not answer. `token` is the one
/// that it wants, where it has one.
#[must_use]
pub fn status(token: Option<&Secret>) -> Option<Status> {
    let answer = get("/v1/status", token)
        .ok()
        .filter(|answer| answer.code == 200)?;
    let status: Status = serde_json::from_str(&answer.text).ok()?;
    // Another program may have the port.
    Some(status).filter(|status| !status.version.is_empty())
}

/// Reads the token of windrow's HTTP from a user secret: the key `api-token` or `token`, or the
/// only key that the secret has.
///
/// # Errors
/// Why there is no token that windrow can use.
pub fn read_token(hooks: &HookCommands, uri: &str) -> Result<Secret, TokenFault> {
    let content = hooks
        .secret_get(uri)
        .map_err(|error| TokenFault::of_refusal(error.words()))?;
    let named = content.get("api-token").or_else(|| content.get("token"));
    let token = match (named, content.values().next()) {
        (Some(token), _) => token,
        (None, Some(only)) if content.len() == 1 => only,
        _ => {
            let why = "it has no key token".to_owned();
            return Err(TokenFault::Unusable(why));
        }
    };
    usable_secret("api-token", token).map_err(TokenFault::Unusable)
}

fn url(path: &str) -> String {
    format!("http://127.0.0.1:{HTTP_PORT}{path}")
}

/// A client that asks without the model's proxy and follows no redirect.
fn agent(limit: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(limit))
        .build()
        .into()
}

fn read_answer(
    sent: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer> {
    let mut response = sent.context("cannot ask windrow")?;
    let text = response
        .body_mut()
        .with_config()
        .limit(ANSWER_MAX_BYTES)
        .read_to_string()
        .context("cannot read windrow's answer")?;
    Ok(Answer {
        code: response.status().as_u16(),
        text,
    })
}
