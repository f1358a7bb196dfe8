//! From a tree to a typed shape, through serde: strict, and with the place of what is wrong.
//!
//! The shapes derive `Deserialize` and nothing else; what this deserializer adds is that fields
//! unknown to a shape are all reported (not only the first) with the nearest name, that fields
//! which the contract has and this version does not serve are told apart from misspelt ones, that
//! `null` means absent as in Kubernetes, and that numbers are never taken for strings.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess,
    Visitor,
};

use crate::check::Problem;
use crate::not_served;
use crate::suggest;
use crate::yaml::{Key, Node, Place, Value};

/// Reads a shape from `node`, which stands at `field` of its object. What is wrong is added to
/// `problems`; unknown fields do not keep the rest from being read, so that there can be a value
/// and errors.
pub(crate) fn decode<T: DeserializeOwned>(
    node: &Node,
    field: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let unknown = RefCell::new(Vec::new());
    let result = T::deserialize(De {
        node,
        path: &Path::Root(field),
        unknown: &unknown,
    });
    problems.append(&mut unknown.into_inner());
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            problems.push(error.0);
            None
        }
    }
}

/// What is said of a field that others serve.
pub(crate) const NOT_SERVED: &str = "is not served by this version of Tulle";

/// The way to a field.
pub(crate) enum Path<'a> {
    Root(&'a str),
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(field) => f.write_str(field),
            Path::Field(parent, name) => {
                let parent = parent.to_string();
                f.write_str(&join(&parent, name))
            }
            Path::Index(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}

/// A field's path below `parent`; names with dots are quoted as in JSON Path.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if name.contains(['.', '/', '[']) {
        format!("{parent}[\"{name}\"]")
    } else if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// Why a shape could not be read. Without a path until the nearest value adds it.
#[derive(Debug)]
struct DecodeError(Problem);

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl DecodeError {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self(Problem::error("", Place::default(), message, hint))
    }
}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), "")
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("must be {}, not {unexpected}", plain(expected)), "")
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = match suggest::hint(variant, expected.iter().copied()) {
            hint if !hint.is_empty() => hint,
            _ => format!("use {}", expected.join(", ")),
        };
        Self::new(format!("\"{variant}\" is not one of its values"), hint)
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::new("is required", format!("add `{field}`"));
        field.clone_into(&mut error.0.field);
        error
    }
}

/// What serde calls a type, in a user's words.
fn plain(expected: &dyn de::Expected) -> String {
    let text = expected.to_string();
    if text.starts_with("struct ") {
        return "a map".to_owned();
    }
    match text.as_str() {
        "a sequence" => "a list".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "f64" => "a number".to_owned(),
        _ => text,
    }
}

/// What a value is, in a user's words.
pub(crate) fn unexpected(node: &Node) -> de::Unexpected<'_> {
    match &node.value {
        Value::Null => de::Unexpected::Other("empty"),
        Value::Bool(b) => de::Unexpected::Bool(*b),
        Value::Int(i) => match (i64::try_from(*i), u64::try_from(*i)) {
            (Ok(i), _) => de::Unexpected::Signed(i),
            (_, Ok(u)) => de::Unexpected::Unsigned(u),
            _ => de::Unexpected::Other("a number"),
        },
        Value::Float(f) => de::Unexpected::Float(*f),
        Value::Text(s) => de::Unexpected::Str(s),
        Value::List(_) => de::Unexpected::Other("a list"),
        Value::Map(_) => de::Unexpected::Other("a map"),
    }
}

#[derive(Clone, Copy)]
struct De<'de, 'p> {
    node: &'de Node,
    path: &'p Path<'p>,
    unknown: &'p RefCell<Vec<Problem>>,
}

impl De<'_, '_> {
    /// Adds place and path to an error that has none.
    fn placed(&self, mut error: DecodeError) -> DecodeError {
        if error.0.placed {
            return error;
        }
        error.0.placed = true;
        let path = self.path.to_string();
        // A missing field's error comes with the field's name and is told of its parent.
        error.0.field = match error.0.field.as_str() {
            "" => path,
            missing => join(&path, missing),
        };
        error.0.place = self.node.place;
        error
    }

    fn wrong(&self, expected: &str) -> DecodeError {
        self.placed(DecodeError::invalid_type(unexpected(self.node), &expected))
    }

    fn report_unknown(&self, shape: &str, key: &Key, fields: &[&str]) {
        let path = join(&self.path.to_string(), &key.text);
        let problem = if not_served::field(shape, &key.text) {
            Problem::error(
                &path,
                key.place,
                NOT_SERVED,
                "take it out; nothing is applied that would not be done",
            )
        } else {
            let hint = match suggest::hint(&key.text, fields.iter().copied()) {
                hint if !hint.is_empty() => hint,
                _ if fields.is_empty() => String::new(),
                _ => format!("its parent has {}", fields.join(", ")),
            };
            Problem::error(&path, key.place, "is not a known field", hint)
        };
        self.unknown.borrow_mut().push(problem);
    }
}

macro_rules! whole_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.deserialize_any(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for De<'de, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(i) => match (i64::try_from(*i), u64::try_from(*i)) {
                (_, Ok(u)) => visitor.visit_u64(u),
                (Ok(i), _) => visitor.visit_i64(i),
                _ => Err(DecodeError::custom("is a number out of all bounds")),
            },
            Value::Float(f) => visitor.visit_f64(*f),
            Value::Text(s) => visitor.visit_borrowed_str(s),
            Value::List(items) => visitor.visit_seq(Items {
                de: self,
                items: items.iter().enumerate(),
            }),
            Value::Map(entries) => visitor.visit_map(Entries {
                de: self,
                rest: entries.iter(),
                shape: None,
                value: None,
            }),
        }
        .map_err(|error| self.placed(error))
    }

    whole_numbers! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char deserialize_bytes
        deserialize_byte_buf deserialize_unit deserialize_identifier
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Text(s) => visitor
                .visit_borrowed_str(s)
                .map_err(|error| self.placed(error)),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                let mut error = self.wrong("a string");
                "put it in quotes".clone_into(&mut error.0.hint);
                Err(error)
            }
            _ => Err(self.wrong("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|error| self.placed(error))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::Map(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a map")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.wrong("a map"));
        };
        visitor
            .visit_map(Entries {
                de: self,
                rest: entries.iter(),
                shape: Some((name, fields)),
                value: None,
            })
            .map_err(|error| self.placed(error))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let Value::Text(word) = &self.node.value else {
            return Err(self.wrong("a string"));
        };
        if !variants.contains(&word.as_str()) && not_served::value(name, word) {
            return Err(self.placed(DecodeError::new(
                format!("\"{word}\" is not served by this version of Tulle"),
                format!("use {}", variants.join(", ")),
            )));
        }
        visitor
            .visit_enum(StrDeserializer::new(word))
            .map_err(|error| self.placed(error))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }
}

struct Items<'de, 'p> {
    de: De<'de, 'p>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let path = Path::Index(self.de.path, index);
        let de = De {
            node,
            path: &path,
            unknown: self.de.unknown,
        };
        let item = seed.deserialize(de);
        item.map(Some).map_err(|error| de.placed(error))
    }
}

struct Entries<'de, 'p> {
    de: De<'de, 'p>,
    rest: std::slice::Iter<'de, (Key, Node)>,
    /// The struct's name and fields; `None` for a map with free keys.
    shape: Option<(&'static str, &'static [&'static str])>,
    value: Option<&'de (Key, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        for entry in self.rest.by_ref() {
            let (key, node) = entry;
            if let Some((shape, fields)) = self.shape {
                if !fields.contains(&key.text.as_str()) {
                    self.de.report_unknown(shape, key, fields);
                    continue;
                }
                if node.value == Value::Null {
                    continue;
                }
            }
            self.value = Some(entry);
            return seed.deserialize(StrDeserializer::new(&key.text)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let Some((key, node)) = self.value.take() else {
            return Err(DecodeError::custom("is a value without a key"));
        };
        let path = Path::Field(self.de.path, &key.text);
        let de = De {
            node,
            path: &path,
            unknown: self.de.unknown,
        };
        seed.deserialize(de).map_err(|error| de.placed(error))
    }
}
