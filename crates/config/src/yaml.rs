//! YAML (and JSON, which is a part of it) as trees in which each value knows its place.
//!
//! The one module that knows the YAML library. A text is cut into documents before it is parsed,
//! which YAML allows (a marker at the start of a line ends a document even inside a scalar), so
//! that a document that is not YAML leaves the others whole. Depth, number of values and the
//! expansion of aliases are bounded.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Spanned, UserMessageFormatter};

/// Deepest nesting of a document.
const MAX_DEPTH: usize = 64;
/// Most values in a document.
const MAX_NODES: usize = 1_000_000;
/// Most uses of aliases in a document, and most values that they stand for.
const MAX_ALIASES: usize = 1_000;
const MAX_ALIASED_NODES: usize = 50_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A line and a column, both from 1; 0 where unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// What a document is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of an entry and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// A text that is not YAML, or too much of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Invalid {
    pub(crate) place: Place,
    pub(crate) message: String,
}

impl Node {
    /// The entry of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// The entry of a map with its key.
    pub(crate) fn entry(&self, key: &str) -> Option<(&Key, &Node)> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(k, _)| k.text == key)
                .map(|(k, n)| (k, n)),
            _ => None,
        }
    }

    /// The entry of a map, to be changed.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => entries
                .iter_mut()
                .find(|(k, _)| k.text == key)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a scalar that is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Cuts a text into documents; each comes with the number of lines before it. Those that hold
/// nothing but comments and directives are left out.
pub(crate) fn documents(text: &str) -> Vec<(u32, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut offset = 0;
    for (number, line) in (0u32..).zip(text.split_inclusive('\n')) {
        let end = offset + line.len();
        if let Some(marker) = marker(line) {
            found.push((start_line, &text[start..offset]));
            (start, start_line) = match marker {
                Marker::Start => (offset, number),
                Marker::End => (end, number + 1),
            };
        }
        offset = end;
    }
    found.push((start_line, &text[start..]));
    found.retain(|(_, document)| {
        document
            .lines()
            .any(|l| !matches!(l.trim(), "" | "---") && !l.trim().starts_with(['#', '%']))
    });
    found
}

enum Marker {
    Start,
    End,
}

fn marker(line: &str) -> Option<Marker> {
    let alone = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
    if line.strip_prefix("---").is_some_and(alone) {
        Some(Marker::Start)
    } else if line.strip_prefix("...").is_some_and(alone) {
        Some(Marker::End)
    } else {
        None
    }
}

/// Parses one document; `lines_before` is added to the lines of all places.
pub(crate) fn parse(document: &str, lines_before: u32) -> Result<Node, Invalid> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: MAX_NODES * 2,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
        emit_comments: false,
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Node>(document, options) {
        Ok(mut node) => {
            node.shift(lines_before);
            Ok(node)
        }
        Err(error) => Err(invalid(&error, lines_before)),
    }
}

fn invalid(error: &serde_saphyr::Error, lines_before: u32) -> Invalid {
    let mut place = error.location().map(place_of).unwrap_or_default();
    place.line = if place.line == 0 {
        lines_before + 1
    } else {
        place.line + lines_before
    };
    let text = error
        .without_snippet()
        .render_with_formatter(&UserMessageFormatter);
    // The place is told apart; the library's lines count from the document's start.
    let text = text.split(" at line ").next().unwrap_or(&text);
    let text = text.lines().next().unwrap_or("unreadable").trim();
    Invalid {
        place,
        message: text.chars().take(300).collect(),
    }
}

fn place_of(location: serde_saphyr::Location) -> Place {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        line: small(location.line()),
        column: small(location.column()),
    }
}

impl Node {
    /// Puts the value and all its parts at one place.
    pub(crate) fn move_to(&mut self, place: Place) {
        self.place = place;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.move_to(place)),
            Value::Map(entries) => {
                for (key, node) in entries {
                    key.place = place;
                    node.move_to(place);
                }
            }
            _ => {}
        }
    }

    /// Whether two values are the same, wherever they stand and in whatever order.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_the_same(b))
            }
            (Value::Map(a), Value::Map(b)) => {
                let has = |(key, node): &(Key, Node)| {
                    other.get(&key.text).is_some_and(|o| node.says_the_same(o))
                };
                a.len() == b.len() && a.iter().all(has)
            }
            (a, b) => a == b,
        }
    }

    fn shift(&mut self, lines: u32) {
        self.place.line = self.place.line.saturating_add(lines);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(entries) => {
                for (key, node) in entries {
                    key.place.line = key.place.line.saturating_add(lines);
                    node.shift(lines);
                }
            }
            _ => {}
        }
    }
}

impl From<serde_json::Value> for Node {
    fn from(json: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let place = Place::default();
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Value::Int(i.into()),
                (None, Some(u)) => Value::Int(u.into()),
                (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(s) => Value::Text(s),
            Json::Array(items) => Value::List(items.into_iter().map(Node::from).collect()),
            Json::Object(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(text, node)| (Key { text, place }, node.into()))
                    .collect(),
            ),
        };
        Self { place, value }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            place: place_of(spanned.referenced),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, i: i64) -> Result<Value, E> {
        Ok(Value::Int(i.into()))
    }

    fn visit_u64<E>(self, u: u64) -> Result<Value, E> {
        Ok(Value::Int(u.into()))
    }

    fn visit_f64<E>(self, f: f64) -> Result<Value, E> {
        Ok(Value::Float(f))
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(Value::Text(s.to_owned()))
    }

    fn visit_string<E>(self, s: String) -> Result<Value, E> {
        Ok(Value::Text(s))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let place = place_of(key.referenced);
            let key = Key {
                text: key.value,
                place,
            };
            entries.push((key, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_cut_at_markers_only() {
        let text =
            "# only a comment\n---\na: 1\n--- {b: 2}\n...\n%YAML 1.2\n---\nc: '--- x'\n---x: 1\n";
        let found = documents(text);
        assert_eq!(
            found,
            [
                (1, "---\na: 1\n"),
                (3, "--- {b: 2}\n"),
                (6, "---\nc: '--- x'\n---x: 1\n")
            ]
        );
        assert!(documents("").is_empty() && documents("\n# x\n---\n").is_empty());
    }

    #[test]
    fn values_know_their_places() {
        let node = parse("a:\n  - x: 1\n    y: [true, 2.5, ~, 'n']\n", 10).expect("valid");
        let list = node.get("a").expect("a");
        let Value::List(items) = &list.value else {
            panic!("{list:?}")
        };
        let (key, y) = items[0].entry("y").expect("y");
        assert_eq!((key.place.line, key.place.column), (13, 5));
        let Value::List(values) = &y.value else {
            panic!("{y:?}")
        };
        assert_eq!(values[0].value, Value::Bool(true));
        assert_eq!(values[1].value, Value::Float(2.5));
        assert_eq!(values[2].value, Value::Null);
        assert_eq!(values[3].value, Value::Text("n".into()));
        assert_eq!((values[3].place.line, values[3].place.column), (13, 23));
    }

    #[test]
    fn what_is_not_yaml_says_where_and_why() {
        let error = parse("a: [1, 2\nb: 3\n", 4).expect_err("unclosed");
        assert_eq!(error.place.line, 6, "{error:?}");
        let error = parse("a: 1\na: 2\n", 0).expect_err("duplicate");
        assert_eq!(error.place.line, 2, "{error:?}");
        assert!(
            error.message.to_lowercase().contains("duplicate"),
            "{error:?}"
        );
        assert!(!error.message.contains("line"), "{error:?}");
    }

    #[test]
    fn bombs_are_refused() {
        let mut lines = vec!["a0: &a0 [x, x, x, x, x, x, x, x, x, x]".to_owned()];
        for i in 1..12 {
            let uses = vec![format!("*a{}", i - 1); 10].join(", ");
            lines.push(format!("a{i}: &a{i} [{uses}]"));
        }
        let bomb = lines.join("\n");
        assert!(parse(&bomb, 0).is_err());
        assert!(parse(&"[".repeat(100_000), 0).is_err());
        assert!(parse(&format!("{}1{}", "[".repeat(100), "]".repeat(100)), 0).is_err());
        let deep: Vec<String> = (0..5000).map(|i| " ".repeat(i) + "a:").collect();
        let deep = deep.join("\n");
        assert!(parse(&deep, 0).is_err());
    }
}
