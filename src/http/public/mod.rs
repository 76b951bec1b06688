//! The public listener: the hook, and the lists.

pub mod batch;
pub mod dismissals;
mod expand;
pub mod lists;
pub mod runs;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(runs::record))
        .routes(routes!(lists::of_workspace, dismissals::clear_workspace))
        .routes(routes!(lists::of_user, dismissals::clear_user))
        .routes(routes!(dismissals::item_of_workspace))
        .routes(routes!(dismissals::item_of_user))
        .routes(routes!(dismissals::everywhere))
        .routes(routes!(batch::lists))
}
