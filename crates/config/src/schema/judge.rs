//! Goes through what a user wrote beside its schema and says all that is wrong with it.
//!
//! A rule is asked when what it is about, and all below, is of the right types, complete and within
//! the schema's bounds, as at the API server. What is unknown to the schema is left to the
//! typed shapes, which know more.

mod rule;
mod scalar;

use super::cel::{self, Boxed};
use super::shape::{Kind, ListType, Schema};
use super::{Schemas, words};
use crate::check::Problem;
use crate::decode::{Path, unexpected};
use crate::yaml::{Key, Node, Place, Value};

/// An object with more findings than this is not looked at any further.
const MAX_FOUND: usize = 200;

/// Items of longer lists are not compared with each other, where the schema sets no bound.
const MAX_COMPARED: usize = 1024;

/// A finding.
pub(crate) struct Found {
    pub(crate) problem: Problem,
    /// Whether findings further down say the same, and better.
    pub(crate) yields: bool,
}

impl From<Problem> for Found {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            yields: false,
        }
    }
}

/// Where the judge stands.
#[derive(Clone, Copy)]
struct At<'p, 'v> {
    node: &'v Node,
    /// What stood there before, where that is known.
    old: Option<&'v Node>,
    path: &'p Path<'p>,
    /// Where findings about it stand: a scalar's at itself, a map's or list's at its key.
    place: Place,
}

/// All that is wrong with `spec`; `old` is what it replaces, without which nothing is said about
/// changes.
pub(super) fn judge(
    schemas: &Schemas,
    schema: &Schema,
    spec: &Node,
    old: Option<&Node>,
) -> Vec<Found> {
    let mut judge = Judge {
        schemas,
        found: Vec::new(),
        blocking: 0,
        with_rules: true,
    };
    let path = &Path::Root("spec");
    let at = At {
        node: spec,
        old,
        path,
        place: spec.place,
    };
    judge.value(schema, at);
    judge.found
}

struct Judge<'s> {
    schemas: &'s Schemas,
    found: Vec<Found>,
    /// How many of the findings keep rules from being asked.
    blocking: usize,
    /// Not where only the shape of a value decides, in `oneOf` and its like.
    with_rules: bool,
}

impl Judge<'_> {
    fn say(&mut self, at: At<'_, '_>, message: impl Into<String>, hint: impl Into<String>) {
        if self.found.len() < MAX_FOUND {
            let problem = Problem::error(&at.path.to_string(), at.place, message, hint);
            self.found.push(problem.into());
        }
    }

    /// Says what keeps rules from being asked.
    fn block(&mut self, at: At<'_, '_>, message: impl Into<String>, hint: impl Into<String>) {
        self.blocking += 1;
        self.say(at, message, hint);
    }

    /// Judges a value and returns it as rules see it.
    fn value<'v>(&mut self, schema: &Schema, at: At<'_, 'v>) -> Boxed<'v> {
        let before = self.blocking;
        if !self.has_kind(schema, at) {
            return cel::scalar(at.node);
        }
        let parts = match &at.node.value {
            Value::Map(entries) => self.map(schema, entries, at),
            Value::List(items) => self.list(schema, items, at),
            _ => {
                self.scalar(schema, at);
                rule::Parts::None
            }
        };
        self.combined(schema, at);
        let whole = parts.whole().unwrap_or_else(|| cel::scalar(at.node));
        if self.with_rules && self.blocking == before {
            for rule in &schema.rules {
                self.ask(rule, &whole, &parts, at);
            }
        }
        whole
    }

    fn has_kind(&mut self, schema: &Schema, at: At<'_, '_>) -> bool {
        let is = |value: &Value| match schema.kind {
            _ if *value == Value::Null => schema.nullable,
            _ if schema.int_or_string => matches!(value, Value::Int(_) | Value::Text(_)),
            None => true,
            Some(Kind::Object) => matches!(value, Value::Map(_)),
            Some(Kind::Array) => matches!(value, Value::List(_)),
            Some(Kind::String) => matches!(value, Value::Text(_)),
            Some(Kind::Integer) => matches!(value, Value::Int(_)),
            Some(Kind::Number) => matches!(value, Value::Int(_) | Value::Float(_)),
            Some(Kind::Boolean) => matches!(value, Value::Bool(_)),
        };
        if is(&at.node.value) {
            return true;
        }
        let wanted = match schema.kind {
            _ if schema.int_or_string => "a whole number or a string",
            Some(Kind::Object) | None => "a map",
            Some(Kind::Array) => "a list",
            Some(Kind::String) => "a string",
            Some(Kind::Integer) => "a whole number",
            Some(Kind::Number) => "a number",
            Some(Kind::Boolean) => "true or false",
        };
        let bare = matches!(
            at.node.value,
            Value::Bool(_) | Value::Int(_) | Value::Float(_)
        );
        let hint = match schema.kind {
            Some(Kind::String) if bare => "put it in quotes",
            _ => "",
        };
        let message = format!("must be {wanted}, not {}", unexpected(at.node));
        self.block(at, message, hint);
        false
    }

    fn map<'v>(
        &mut self,
        schema: &Schema,
        entries: &'v [(Key, Node)],
        at: At<'_, 'v>,
    ) -> rule::Parts<'v> {
        for name in &schema.required {
            if at.node.get(name).is_none() {
                let path = &Path::Field(at.path, name);
                self.block(At { path, ..at }, "is required", format!("add `{name}`"));
            }
        }
        let count = entries.len();
        self.count(count, schema.min_properties, schema.max_properties, at);
        let mut parts = Vec::with_capacity(count);
        for (key, node) in entries {
            let named = schema.properties.get(key.text.as_str());
            let Some(schema) = named.or(schema.additional_properties.as_deref()) else {
                continue;
            };
            let at = At {
                node,
                old: at.old.and_then(|old| old.get(&key.text)),
                path: &Path::Field(at.path, &key.text),
                place: match node.value {
                    Value::Map(_) | Value::List(_) => key.place,
                    _ => node.place,
                },
            };
            parts.push((key, self.value(schema, at)));
        }
        rule::Parts::Map(parts)
    }

    fn list<'v>(&mut self, schema: &Schema, items: &'v [Node], at: At<'_, 'v>) -> rule::Parts<'v> {
        self.count(items.len(), schema.min_items, schema.max_items, at);
        let too_many = items.len() > schema.max_items.unwrap_or(MAX_COMPARED);
        let mut parts = Vec::with_capacity(items.len());
        for (i, node) in items.iter().enumerate() {
            let at = At {
                node,
                old: schema.same_item(node, at.old),
                path: &Path::Index(at.path, i),
                place: node.place,
            };
            // Each item is compared with all: not beyond the bound.
            if !too_many && let Some(key) = schema.repeated(&items[..i], node) {
                self.repeated(key, at);
            }
            if let Some(schema) = &schema.items {
                parts.push(self.value(schema, at));
            }
        }
        rule::Parts::List(parts)
    }

    /// That an item is there twice; `key` names the field that tells them apart.
    fn repeated(&mut self, key: &str, at: At<'_, '_>) {
        let field = at.node.get(key);
        let text = field.unwrap_or(at.node).as_text();
        let (message, hint) = words::of_repeated(&at.path.to_string(), text);
        match field {
            Some(node) => {
                let path = &Path::Field(at.path, key);
                let place = node.place;
                self.say(At { path, place, ..at }, message, hint);
            }
            None => self.say(at, message, hint),
        }
    }

    fn count(&mut self, count: usize, least: Option<usize>, most: Option<usize>, at: At<'_, '_>) {
        if let Some(most) = most.filter(|most| count > *most) {
            let message = format!("has {count} items; there may be {most}");
            self.block(at, message, "spread them over several objects");
        }
        if let Some(least) = least.filter(|least| count < *least) {
            let items = match least {
                1 => "one item".to_owned(),
                n => format!("{n} items"),
            };
            let hint = words::of_empty(&at.path.to_string());
            self.say(at, format!("must have at least {items}"), hint);
        }
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`. Of alternatives none of which fits, the first tells why.
    fn combined(&mut self, schema: &Schema, at: At<'_, '_>) {
        for part in &schema.all_of {
            let found = self.aside(part, at);
            self.found.extend(found);
        }
        for (alternatives, only_one) in [(&schema.any_of, false), (&schema.one_of, true)] {
            let mut findings: Vec<_> = alternatives.iter().map(|s| self.aside(s, at)).collect();
            let fitting = findings.iter().filter(|f| f.is_empty()).count();
            if fitting == 0 && !findings.is_empty() {
                self.found.extend(findings.swap_remove(0));
            } else if only_one && fitting > 1 {
                self.say(at, "is more than one of the things that it may be", "");
            }
        }
        if let Some(not) = &schema.not
            && self.aside(not, at).is_empty()
        {
            self.say(at, "is what it must not be", "");
        }
    }

    /// What is wrong with a value by a part of its schema.
    fn aside(&self, schema: &Schema, at: At<'_, '_>) -> Vec<Found> {
        let mut judge = Judge {
            schemas: self.schemas,
            found: Vec::new(),
            blocking: 0,
            with_rules: false,
        };
        judge.value(schema, at);
        judge.found
    }
}

impl Schema {
    /// Whether an item is among others already: the key that tells items apart, or an empty one.
    fn repeated(&self, others: &[Node], node: &Node) -> Option<&str> {
        let is = |other: &&Node| self.is_same_item(other, node);
        others.iter().find(is)?;
        Some(self.list_map_keys.first().map_or("", |key| key))
    }

    /// The item of `old` that `node` replaces, where items have names.
    fn same_item<'v>(&self, node: &Node, old: Option<&'v Node>) -> Option<&'v Node> {
        match &old?.value {
            Value::List(items) if self.list_type == ListType::Map => {
                items.iter().find(|other| self.is_same_item(other, node))
            }
            _ => None,
        }
    }

    fn is_same_item(&self, a: &Node, b: &Node) -> bool {
        let same = |a: Option<&Node>, b: Option<&Node>| match (a, b) {
            (Some(a), Some(b)) => a.says_the_same(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        match self.list_type {
            ListType::Atomic => false,
            ListType::Set => a.says_the_same(b),
            ListType::Map => self.list_map_keys.iter().all(|k| same(a.get(k), b.get(k))),
        }
    }
}
