//! Schemas as they are written in CRDs: Kubernetes' structural schemas, of OpenAPI's words those that
//! Gateway API uses.
//!
//! A word that is not known is refused when a schema is read, so that none is silently ignored; a
//! test reads all schemas.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::cel::Program;

/// What a value must be.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Schema {
    #[serde(rename = "type")]
    pub(super) kind: Option<Kind>,
    pub(super) nullable: bool,
    pub(super) default: Option<serde_json::Value>,

    pub(super) properties: BTreeMap<Box<str>, Schema>,
    pub(super) required: Vec<Box<str>>,
    pub(super) additional_properties: Option<Box<Schema>>,
    pub(super) max_properties: Option<usize>,
    pub(super) min_properties: Option<usize>,

    pub(super) items: Option<Box<Schema>>,
    pub(super) max_items: Option<usize>,
    pub(super) min_items: Option<usize>,
    #[serde(rename = "x-kubernetes-list-type")]
    pub(super) list_type: ListType,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    pub(super) list_map_keys: Vec<Box<str>>,
    /// How it is merged, which is not decided here.
    #[serde(rename = "x-kubernetes-map-type")]
    _map_type: Option<Box<str>>,

    #[serde(rename = "enum")]
    pub(super) values: Vec<serde_json::Value>,
    pub(super) pattern: Option<Box<str>>,
    pub(super) format: Option<Format>,
    pub(super) max_length: Option<usize>,
    pub(super) min_length: Option<usize>,

    pub(super) maximum: Option<i64>,
    pub(super) minimum: Option<i64>,

    #[serde(rename = "x-kubernetes-int-or-string")]
    pub(super) int_or_string: bool,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    pub(super) any_fields: bool,

    pub(super) one_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) all_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,

    #[serde(rename = "x-kubernetes-validations")]
    pub(super) rules: Vec<Rule>,
}

impl Schema {
    /// Whether it, or a part of it, has rules about changes.
    pub(super) fn knows_changes(&self) -> bool {
        let parts = self.properties.values().chain(self.items.as_deref());
        let mut parts = parts.chain(self.additional_properties.as_deref());
        self.rules.iter().any(|r| r.text.contains("oldSelf")) || parts.any(Self::knows_changes)
    }
}

/// `type`.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// `x-kubernetes-list-type`.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum ListType {
    /// Nothing about its items.
    #[default]
    Atomic,
    /// No item is there twice.
    Set,
    /// No two items have the same keys.
    Map,
}

/// `format`.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Int32,
    Int64,
    Ipv4,
    Ipv6,
    #[serde(rename = "date-time")]
    DateTime,
}

/// A rule of `x-kubernetes-validations`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(rename = "rule")]
    pub(super) text: Box<str>,
    #[serde(default)]
    pub(super) message: Box<str>,
    #[serde(default)]
    pub(super) message_expression: Option<Box<str>>,
    /// The field that it is about, such as `.port`.
    #[serde(default)]
    pub(super) field_path: Option<Box<str>>,
    /// What the API server calls the error; ours have no such word.
    #[serde(rename = "reason", default)]
    _reason: Option<Box<str>>,
    /// Compiled when it is first asked; rules of the same text share that.
    #[serde(skip)]
    pub(super) program: OnceLock<Option<Arc<Program>>>,
}
