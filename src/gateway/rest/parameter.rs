//! Variables of paths that several calls share, with what the description says of them.

use serde::Deserialize;
use utoipa::IntoParams;

/// A collection in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct CollectionPath {
    /// The collection's name.
    #[param(max_length = 64, example = "notes")]
    pub(super) collection: String,
}

/// A document in a path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DocumentPath {
    /// The collection's name.
    #[param(max_length = 64, example = "notes")]
    pub(super) collection: String,
    /// The document's id, percent-encoded.
    #[param(max_length = 512, example = "today")]
    pub(super) id: String,
}
