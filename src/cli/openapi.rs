//! `recents openapi`.

use super::output::print;
use super::{Done, Failure};
use crate::http;

pub(super) fn run() -> Result<Done, Failure> {
    print(serde_json::to_string_pretty(&http::openapi())? + "\n")?;
    Ok(Done::Complete)
}
