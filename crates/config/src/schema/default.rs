//! Defaults of schemas, filled in where the user wrote nothing. As at the API server, a `null` that
//! may not be there counts as nothing, and defaults have defaults of their own.

use super::shape::Schema;
use crate::yaml::{Key, Node, Place, Value};

/// Fills in what is left out. What is added stands at the place of what it was added to.
pub(super) fn fill(schema: &Schema, node: &mut Node) {
    let place = node.place;
    match &mut node.value {
        Value::Map(entries) => {
            entries.retain(|(key, value)| {
                let field = schema.properties.get(key.text.as_str());
                value.value != Value::Null || field.is_none_or(|f| f.nullable)
            });
            for (name, field) in &schema.properties {
                if let Some(default) = &field.default
                    && !entries.iter().any(|(key, _)| *key.text == **name)
                {
                    entries.push(added(name, default, place));
                }
            }
            for (key, value) in entries {
                let named = schema.properties.get(key.text.as_str());
                if let Some(schema) = named.or(schema.additional_properties.as_deref()) {
                    fill(schema, value);
                }
            }
        }
        Value::List(items) => {
            for item in items {
                if let Some(schema) = &schema.items {
                    fill(schema, item);
                }
            }
        }
        _ => {}
    }
}

fn added(name: &str, default: &serde_json::Value, place: Place) -> (Key, Node) {
    let mut node = Node::from(default.clone());
    node.move_to(place);
    let text = name.to_owned();
    (Key { text, place }, node)
}
