//! What filters mean.
