//! One file.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{ConfigError, Node};
use crate::limit::{Limit, Unit};

/// Deepest nesting of descriptors.
const DEPTH: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    domain: Spanned<String>,
    #[serde(default)]
    descriptors: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Descriptor {
    key: Spanned<String>,
    value: Option<String>,
    rate_limit: Option<RateLimit>,
    #[serde(default)]
    shadow_mode: bool,
    #[serde(default)]
    descriptors: Vec<Self>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimit {
    requests_per_unit: Option<u32>,
    unit: Option<Spanned<String>>,
    #[serde(default)]
    unlimited: bool,
    name: Option<String>,
    #[serde(default)]
    replaces: Vec<Replaced>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replaced {
    name: String,
}

/// The domain of a file, the line that says it, and its limits.
pub(super) fn parse(path: &Path, text: &str) -> Result<(String, u64, Node), ConfigError> {
    let invalid = |line: u64, message: String, hint: &str| ConfigError::Invalid {
        path: path.display().to_string(),
        line,
        message,
        hint: hint.to_owned(),
    };
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 2 * DEPTH,
            max_documents: 2,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    let file: File = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line());
        let text = error.without_snippet().to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        let text = text.lines().next().unwrap_or("unreadable").trim();
        let hint = "the format is that of github.com/envoyproxy/ratelimit";
        invalid(line, text.chars().take(300).collect(), hint)
    })?;
    let line = file.domain.referenced.line();
    if file.domain.value.is_empty() {
        let message = "domain: must not be empty".to_owned();
        return Err(invalid(line, message, "name what is limited"));
    }
    let mut node = Node::default();
    for descriptor in file.descriptors {
        add(&mut node, descriptor)
            .map_err(|wrong| invalid(wrong.line, wrong.message, wrong.hint))?;
    }
    Ok((file.domain.value, line, node))
}

struct Wrong {
    line: u64,
    message: String,
    hint: &'static str,
}

fn add(to: &mut Node, descriptor: Descriptor) -> Result<(), Wrong> {
    let key = descriptor.key.value;
    let line = descriptor.key.referenced.line();
    let wrong = |message: &str, hint| Wrong {
        line,
        message: message.to_owned(),
        hint,
    };
    if key.is_empty() {
        return Err(wrong("key: must not be empty", "name the entry"));
    }
    let mut node = Node::default();
    if let Some(limit) = descriptor.rate_limit {
        node.limit = Some(Arc::new(limit_of(limit, descriptor.shadow_mode, line)?));
    } else if descriptor.shadow_mode {
        let hint = "take it out, or add rate_limit";
        return Err(wrong("shadow_mode: there is no limit here", hint));
    }
    for inner in descriptor.descriptors {
        add(&mut node, inner)?;
    }
    let value = descriptor.value.filter(|value| !value.is_empty());
    let shown = value.clone();
    let branch = to.next.entry(key.clone()).or_default();
    let taken = match value {
        None => branch.any.replace(Box::new(node)).is_some(),
        Some(value) => match value.strip_suffix('*') {
            None => branch.exact.insert(value, node).is_some(),
            Some(start) => {
                let starts = &mut branch.starts;
                let taken = starts.iter().any(|(other, _)| other == start);
                let at = starts.partition_point(|(other, _)| other.len() > start.len());
                starts.insert(at, (start.to_owned(), node));
                taken
            }
        },
    };
    if taken {
        let of = shown.map(|value| format!(" with value \"{value}\""));
        let message = format!("key \"{key}\"{} is there twice", of.unwrap_or_default());
        return Err(wrong(&message, "put both in one descriptor"));
    }
    Ok(())
}

fn limit_of(limit: RateLimit, shadow: bool, line: u64) -> Result<Limit, Wrong> {
    let wrong = |line, message: String, hint| Wrong {
        line,
        message,
        hint,
    };
    let name = limit.name.unwrap_or_default();
    let replaces: Vec<String> = limit.replaces.into_iter().map(|other| other.name).collect();
    if replaces
        .iter()
        .any(|other| other.is_empty() || *other == name)
    {
        let message = "replaces: must name other limits".to_owned();
        return Err(wrong(line, message, "use the `name` of another rate_limit"));
    }
    if limit.unlimited {
        if limit.unit.is_some() || limit.requests_per_unit.is_some() {
            let message = "unlimited: has neither unit nor requests_per_unit".to_owned();
            return Err(wrong(line, message, "take one or the other out"));
        }
        return Ok(Limit {
            name,
            requests: None,
            unit: Unit::Second,
            shadow,
            replaces,
        });
    }
    let Some(requests) = limit.requests_per_unit else {
        let message = "rate_limit: requests_per_unit is missing".to_owned();
        return Err(wrong(line, message, "say how many, or `unlimited: true`"));
    };
    let Some(unit) = limit.unit else {
        let message = "rate_limit: unit is missing".to_owned();
        return Err(wrong(
            line,
            message,
            "use second, minute, hour, day, month or year",
        ));
    };
    let mut units = Unit::ALL.into_iter();
    let Some(found) = units.find(|u| u.as_str().eq_ignore_ascii_case(&unit.value)) else {
        let message = format!("unit: \"{}\" is none", unit.value);
        let hint = "use second, minute, hour, day, month or year";
        return Err(wrong(unit.referenced.line(), message, hint));
    };
    Ok(Limit {
        name,
        requests: Some(requests),
        unit: found,
        shadow,
        replaces,
    })
}
