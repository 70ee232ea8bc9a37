//! What a query asks of a document.
//!
//! - [`expression`] values computed from a document

pub mod expression;

pub use expression::Expression;
