//! Verification over HTTP: `POST /v1/verify` starts one, and `GET /v1/verify` says how far it is
//! and what it has found. Who may ask is decided before; what is done is behind [`Verifier`].

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use windrow_core::settings::parse::parse_bytes;
use windrow_core::values::time::{EventTime, parse_rfc3339};
use windrow_core::verify::report::Report;

/// What can verify the table, one verification at a time.
pub trait Verifier: Send + Sync {
    /// Starts one in the background, and says its name.
    ///
    /// # Errors
    /// One is under way already, or this process cannot.
    fn start(&self, wish: &VerifyWish) -> Result<String, String>;

    /// The last one, or the one that is under way; `None` where none was started.
    fn report(&self) -> Option<Report>;
}

/// What is to be verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyWish {
    /// Only windows that start here or later are counted again.
    pub from: Option<EventTime>,
    /// Only windows that start before this are counted again.
    pub to: Option<EventTime>,
    /// Every byte of every file is read.
    pub deep: bool,
    /// How many bytes a second may be read; `None` leaves it to the settings.
    pub rate: Option<u64>,
}

/// What the question may say; each has the form of the command line's option.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    from: Option<String>,
    to: Option<String>,
    deep: bool,
    rate: Option<String>,
}

impl Asked {
    fn read(&self) -> Result<VerifyWish, String> {
        let time = |name: &str, text: &Option<String>| {
            let text = text.as_deref().filter(|text| !text.is_empty());
            text.map(|text| read_time(text).ok_or_else(|| not_a_time(name, text)))
                .transpose()
        };
        let rate = self.rate.as_deref().filter(|text| !text.is_empty());
        let rate = rate.map(parse_bytes).transpose();
        let rate = rate.map_err(|why| format!("cannot read rate: {why}"))?;
        if rate == Some(0) {
            return Err("cannot read rate \"0\": it must be more than zero".to_owned());
        }
        Ok(VerifyWish {
            from: time("from", &self.from)?,
            to: time("to", &self.to)?,
            deep: self.deep,
            rate,
        })
    }
}

/// A time as RFC 3339 writes it, or a day in UTC, which is its beginning.
#[must_use]
pub fn read_time(text: &str) -> Option<EventTime> {
    parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}T00:00:00Z")))
}

fn not_a_time(name: &str, text: &str) -> String {
    let shown = text.escape_debug();
    format!("cannot read {name} \"{shown}\": write a time such as 2026-11-27T12:00:00Z, or a day")
}

/// The path `/v1/verify`. Without a verifier, which is in console mode, it says that there is no
/// table.
pub fn routes<S: Clone + Send + Sync + 'static>(verifier: Option<Arc<dyn Verifier>>) -> Router<S> {
    Router::new()
        .route("/v1/verify", get(show).post(start))
        .with_state(verifier)
}

type Shared = State<Option<Arc<dyn Verifier>>>;

async fn show(State(verifier): Shared) -> Response {
    match verifier.and_then(|verifier| verifier.report()) {
        Some(report) => Json(report).into_response(),
        None => fail(StatusCode::NOT_FOUND, "no verification was started"),
    }
}

async fn start(
    State(verifier): Shared,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Some(verifier) = verifier else {
        return fail(StatusCode::CONFLICT, "console mode has no table to verify");
    };
    let wish = match asked {
        Ok(Query(asked)) => asked.read(),
        Err(_) => Err("cannot read the question; it may say from, to, deep and rate".to_owned()),
    };
    match wish.map(|wish| verifier.start(&wish)) {
        Ok(Ok(id)) => Json(json!({ "id": id })).into_response(),
        Ok(Err(why)) => fail(StatusCode::CONFLICT, &why),
        Err(why) => fail(StatusCode::BAD_REQUEST, &why),
    }
}

fn fail(code: StatusCode, why: &str) -> Response {
    (code, Json(json!({"error": why}))).into_response()
}
