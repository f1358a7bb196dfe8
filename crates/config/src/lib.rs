//! What users write, read: YAML and JSON in Kubernetes, Gateway API v1 and `tulle.dev/v1alpha1`
//! shapes become typed [`Object`]s ([`parse`]), and these become resources of the model
//! ([`translate::Translator`]).
//!
//! Nothing here stops at the first mistake and nothing panics: results stand beside
//! [`Diagnostic`]s that name file, line, object and field, and say what to do. An *error* means
//! that the object is refused; a *warning* that it works except where it is wrong.
//!
//! A field that is not known is an error, and so is one that the contract has but this version
//! does not serve: nothing that a user wrote is ever silently ignored.
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod kind;
pub mod object;
pub mod reference;
pub mod status;
pub mod translate;

pub use diagnostic::{Diagnostic, Severity};
pub use duration::Span;
pub use kind::ObjectKind;
pub use object::{Metadata, Object, ObjectKey, Source, Spec};
pub use parse::{MAX_INPUT_BYTES, Parsed, parse};
pub use quantity::Quantity;
pub use schema::Schemas;

mod check;
mod decode;
mod duration;
mod not_served;
mod parse;
mod quantity;
mod schema;
mod suggest;
mod yaml;
