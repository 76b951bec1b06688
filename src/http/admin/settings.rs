//! The settings that change at run time.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::App;
use crate::http::body::Json;
use crate::http::field_error::{FieldCode, FieldError};
use crate::http::fields::{Field, Fields};
use crate::http::problem::Problem;
use crate::http::query::NoParameters;
use crate::settings::{Change, Effective, NoValue};

/// What is to be changed; what is not named stays as it is.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "describes the body; it is read field by field, to name every error"
)]
struct SettingsChange {
    /// `auto`, `materialized`, `shadow` or `history`.
    #[schema(example = "materialized", nullable = false)]
    read_path: Option<String>,
    /// `batched`, `per_item` or `off`.
    #[schema(example = "batched", nullable = false)]
    details_mode: Option<String>,
}

/// The settings
///
/// What holds now, in this replica: `auto` shows as what it stands for, and a replica without a history reads
/// the table, whatever is stored.
#[utoipa::path(
    get,
    path = "/admin/v1/settings",
    responses((status = 200, description = "The settings", body = Effective))
)]
pub(super) async fn get(State(app): State<Arc<App>>, _: NoParameters) -> JsonAnswer<Effective> {
    JsonAnswer(app.settings.effective())
}

/// Change settings
///
/// They are stored, whatever the configuration says; every replica follows within five seconds. `auto`
/// is the history until the first backfill of it has succeeded, then the table. `shadow` and `history` need a
/// history to read from.
#[utoipa::path(
    patch,
    path = "/admin/v1/settings",
    request_body = SettingsChange,
    responses((status = 200, description = "What holds now", body = Effective))
)]
pub(super) async fn change(
    State(app): State<Arc<App>>,
    _: NoParameters,
    Json(body): Json,
) -> Result<JsonAnswer<Effective>, Problem> {
    let mut errors = Vec::new();
    let change = read(&body, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    Ok(JsonAnswer(app.settings.set(&app.store, change).await?))
}

fn read(body: &Value, errors: &mut Vec<FieldError>) -> Change {
    let known = ["read_path", "details_mode"];
    let Some(mut fields) = Fields::new(body, String::new(), &known, errors) else {
        return Change::default();
    };
    Change {
        read_path: value(&mut fields, "read_path"),
        details_mode: value(&mut fields, "details_mode"),
    }
}

/// One of the values of a setting; missing is none.
fn value<T: FromStr<Err = NoValue>>(fields: &mut Fields<'_, '_>, name: &str) -> Option<T> {
    let text = match fields.value(name) {
        Field::Here(Value::String(text)) => text,
        Field::Missing => return None,
        _ => {
            fields.refuse(name, FieldCode::WrongType, "is not a string");
            return None;
        }
    };
    let value = text
        .parse()
        .map_err(|no: NoValue| fields.refuse(name, FieldCode::UnknownValue, no));
    value.ok()
}
