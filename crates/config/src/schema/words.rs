//! What is said when a rule or pattern of a CRD is broken, where the CRD's own message would tell a
//! user less: the field that it is about, what is wrong, and the remedy.
//!
//! Only words: what is refused is decided by the CRDs. A rule that is not listed has its own message;
//! a test sees to it that what is listed exists.

mod patterns;
mod rules;

use std::borrow::Cow;

use self::patterns::PATTERNS;
use self::rules::RULES;
use crate::reference::shorten;

/// What is said of a broken rule.
pub(super) struct Words<'a> {
    /// Where it stands, below what the rule is about.
    pub(super) field: &'static str,
    /// What is wrong; `{}` is the field's text.
    pub(super) message: Cow<'a, str>,
    /// What to do.
    pub(super) hint: String,
    /// Whether it is about a list as a whole, and not about items of it.
    pub(super) whole: bool,
    /// Whether findings further down say it better.
    pub(super) yields: bool,
}

/// The words for a rule with this message.
pub(super) fn of_rule(message: &str) -> Words<'_> {
    let words = |field, message: Cow<'static, str>, hint: &str| Words {
        field,
        message,
        hint: hint.to_owned(),
        whole: false,
        yields: false,
    };
    if let Some((_, field, message, hint)) = RULES.iter().find(|(of, ..)| *of == message) {
        let name = field.trim_start_matches(['*', '^']);
        return Words {
            whole: field.starts_with('*'),
            yields: field.starts_with('^'),
            ..words(name, Cow::Borrowed(message), hint)
        };
    }
    if let Some(field) = message
        .strip_prefix("filter.")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(field, _)| FILTERS.iter().find(|f| **f == field))
    {
        return if message.contains(" must be nil ") {
            let message = "does not belong to the filter's `type`".into();
            words(field, message, "change `type`, or take it out")
        } else {
            let message = format!("the filter's `{field}` is missing").into();
            words("", message, &format!("add `{field}`"))
        };
    }
    if message.ends_with(" filter cannot be repeated") {
        let message = "a filter of this type is there already".into();
        return words("", message, "put both into one");
    }
    Words {
        message: message.into(),
        ..words("", Cow::Borrowed(""), "")
    }
}

const FILTERS: [&str; 8] = [
    "requestHeaderModifier",
    "responseHeaderModifier",
    "requestMirror",
    "requestRedirect",
    "urlRewrite",
    "cors",
    "externalAuth",
    "extensionRef",
];

/// The messages of the rules that have words here.
#[cfg(test)]
pub(super) fn rules() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(message, ..)| *message)
}

/// The patterns that have words here.
#[cfg(test)]
pub(super) fn patterns() -> impl Iterator<Item = &'static str> {
    PATTERNS.iter().map(|(pattern, ..)| *pattern)
}

/// What is said of a text that does not match a pattern, after the text; and the hint.
pub(super) fn of_pattern(pattern: &str) -> (Cow<'static, str>, &'static str) {
    let known = PATTERNS.iter().find(|(of, ..)| *of == pattern);
    match known {
        Some((_, message, hint)) => (Cow::Borrowed(message), hint),
        None => (format!("does not match {pattern}").into(), ""),
    }
}

/// What to do about what should be an address; only Gateways have them.
pub(super) const NO_ADDRESS: &str = "leave `addresses` out to listen everywhere";

/// What is said of an item that is in its list already.
pub(super) fn of_repeated(path: &str, text: Option<&str>) -> (String, &'static str) {
    match text {
        Some(name) if path.starts_with("spec.listeners[") => (
            format!("two listeners are named \"{}\"", shorten(name)),
            "give each its own name",
        ),
        Some(text) => (
            format!("\"{}\" is there twice", shorten(text)),
            "take one out",
        ),
        None => ("is there twice".to_owned(), "take one out"),
    }
}

/// What to do about a list that must not be empty.
pub(super) fn of_empty(path: &str) -> &'static str {
    match path {
        "spec.listeners" => "add `listeners: [{name: http, port: 80, protocol: HTTP}]`",
        "spec.rules" => "write a rule",
        "spec.hostnames" => "name the servers that clients ask for",
        _ if path.ends_with(".caCertificateRefs") => {
            "name a ConfigMap with the root certificates in `ca.crt`"
        }
        _ => "",
    }
}
