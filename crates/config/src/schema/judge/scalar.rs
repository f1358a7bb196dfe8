//! Texts and numbers: enumerations, lengths, patterns, formats, bounds. Of a value that is wrong in
//! several ways the first is told.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{At, Judge};
use crate::reference::shorten;
use crate::schema::shape::{Format, Schema};
use crate::schema::{pattern, words};
use crate::suggest;
use crate::yaml::Value;

impl Judge<'_> {
    pub(super) fn scalar(&mut self, schema: &Schema, at: At<'_, '_>) {
        match &at.node.value {
            Value::Text(text) => self.text(schema, text, at),
            Value::Int(number) => self.number(schema, *number, at),
            _ => {}
        }
    }

    fn number(&mut self, schema: &Schema, number: i128, at: At<'_, '_>) {
        let (low, high) = match schema.format {
            Some(Format::Int32) => (i32::MIN.into(), i32::MAX.into()),
            _ => (i64::MIN, i64::MAX),
        };
        let least = schema.minimum.unwrap_or(low);
        let most = schema.maximum.unwrap_or(high);
        let known = |v: &serde_json::Value| v.as_i64().is_some_and(|v| i128::from(v) == number);
        if !schema.values.is_empty() && !schema.values.iter().any(known) {
            let values: Vec<String> = schema.values.iter().map(ToString::to_string).collect();
            let message = format!("{number} is not one of its values");
            return self.block(at, message, format!("use {}", values.join(", ")));
        }
        if (i128::from(least)..=i128::from(most)).contains(&number) {
            return;
        }
        let message = match (schema.minimum, schema.maximum) {
            (Some(least), None) if number < i128::from(least) => {
                format!("must be at least {least}")
            }
            _ => format!("must be from {least} to {most}"),
        };
        self.say(at, message, "");
    }

    fn text(&mut self, schema: &Schema, text: &str, at: At<'_, '_>) {
        let known = |v: &serde_json::Value| v.as_str() == Some(text);
        if !schema.values.is_empty() && !schema.values.iter().any(known) {
            let values = schema.values.iter().filter_map(|v| v.as_str());
            let hint = match suggest::hint(text, values.clone()) {
                hint if hint.is_empty() => format!("use {}", values.collect::<Vec<_>>().join(", ")),
                hint => hint,
            };
            let message = format!("\"{}\" is not one of its values", shorten(text));
            return self.block(at, message, hint);
        }
        let length = text.chars().count();
        if let Some(most) = schema.max_length.filter(|most| length > *most) {
            return self.block(at, format!("is longer than {most} characters"), "");
        }
        if let Some(least) = schema.min_length.filter(|least| length < *least) {
            let message = match least {
                1 => "must not be empty".to_owned(),
                n => format!("must have at least {n} characters"),
            };
            return self.say(at, message, "");
        }
        if let Some(pattern) = &schema.pattern
            && pattern::matches(pattern, text) != Some(true)
        {
            let (message, hint) = words::of_pattern(pattern);
            let message = format!("\"{}\" {message}", shorten(text));
            return self.say(at, message, hint);
        }
        let is_address = match schema.format {
            Some(Format::Ipv4) => text.parse::<Ipv4Addr>().is_ok(),
            Some(Format::Ipv6) => text.parse::<Ipv6Addr>().is_ok(),
            _ => true,
        };
        if !is_address {
            let message = format!("\"{}\" is not an IP address", shorten(text));
            self.say(at, message, words::NO_ADDRESS);
        }
    }
}
