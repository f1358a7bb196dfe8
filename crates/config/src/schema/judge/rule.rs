//! Rules, and where what they refuse stands.
//!
//! A rule about a list speaks of the whole of it. Which items it means is found by asking it about
//! parts of the list: those with which it ceases to hold.

use std::sync::Arc;

use super::{At, Found, Judge, MAX_FOUND};
use crate::check::Problem;
use crate::decode::{Path, join};
use crate::reference::shorten;
use crate::schema::cel::{self, Boxed, Program, Subject};
use crate::schema::shape::Rule;
use crate::schema::words::{self, Words};
use crate::yaml::{Key, Node, Place, Value};

/// Lists longer than this are only searched for the first item that a rule refuses.
const SEARCHED: usize = 16;

/// What a value is made of, as rules see it.
pub(super) enum Parts<'v> {
    None,
    List(Vec<Boxed<'v>>),
    Map(Vec<(&'v Key, Boxed<'v>)>),
}

impl<'v> Parts<'v> {
    /// The value; `None` if it has no parts.
    pub(super) fn whole(&self) -> Option<Boxed<'v>> {
        match self {
            Self::None => None,
            Self::List(items) => Some(self.some(0..items.len())),
            Self::Map(entries) => Some(self.some(0..entries.len())),
        }
    }

    /// A value with only these of its parts.
    fn some(&self, indices: impl IntoIterator<Item = usize>) -> Boxed<'v> {
        let indices = indices.into_iter();
        match self {
            Self::None => cel::list([]),
            Self::List(items) => {
                let items: Arc<[_]> = indices.map(|i| items[i].clone()).collect();
                cel::list(items)
            }
            Self::Map(entries) => cel::map(
                indices
                    .map(|i| (entries[i].0.text.as_str(), entries[i].1.clone()))
                    .collect(),
            ),
        }
    }
}

impl Judge<'_> {
    /// Asks a rule, and tells what it has against the value.
    pub(super) fn ask<'v>(
        &mut self,
        rule: &Rule,
        whole: &Boxed<'v>,
        parts: &Parts<'v>,
        at: At<'_, 'v>,
    ) {
        let Some(program) = self.schemas.program(&rule.text, &rule.program) else {
            return;
        };
        let old = match (program.about_change, at.old) {
            (true, None) => return,
            (true, Some(old)) => Some(old),
            (false, _) => None,
        };
        let holds = |value: Boxed<'v>| {
            let old = old.map(as_seen);
            program.holds(Subject { value, old }, self.schemas.functions())
        };
        if holds(whole.clone()) {
            return;
        }
        #[cfg(test)]
        crate::schema::tests::broken(&rule.text);
        let words = words::of_rule(&rule.message);
        let guilty = match parts {
            Parts::List(items) if !words.whole => {
                culprits(items.len(), |some| holds(parts.some(some.iter().copied())))
            }
            _ => Vec::new(),
        };
        let message = self
            .made(rule, whole)
            .unwrap_or_else(|| words.message.to_string());
        let words = Words {
            message: message.into(),
            ..words
        };
        if guilty.is_empty() {
            self.refuse(rule, &words, at);
        }
        for i in guilty {
            if let Value::List(items) = &at.node.value
                && let Some(node) = items.get(i)
            {
                let path = &Path::Index(at.path, i);
                let place = node.place;
                let at = At {
                    node,
                    path,
                    place,
                    ..at
                };
                self.refuse(rule, &words, at);
            }
        }
    }

    /// The message of a `messageExpression`.
    fn made(&self, rule: &Rule, whole: &Boxed<'_>) -> Option<String> {
        let program = Program::compile(rule.message_expression.as_deref()?).ok()?;
        let subject = Subject {
            value: whole.clone(),
            old: None,
        };
        program.text(subject, self.schemas.functions())
    }

    fn refuse(&mut self, rule: &Rule, words: &Words<'_>, at: At<'_, '_>) {
        if self.found.len() >= MAX_FOUND {
            return;
        }
        let named = rule.field_path.as_deref().unwrap_or_default();
        let named = named.trim_start_matches('.');
        let steps = if words.field.is_empty() {
            named
        } else {
            words.field
        };
        let (mut field, mut place, mut node) = (at.path.to_string(), at.place, at.node);
        for step in steps.split('.').filter(|step| !step.is_empty()) {
            field = join(&field, step);
            if let Some((key, inner)) = node.entry(step) {
                place = place_of(key, inner);
                node = inner;
            }
        }
        let scalar = !matches!(node.value, Value::Map(_) | Value::List(_));
        let said = |f: &Found| {
            f.problem.field == field && scalar
                || words.yields && f.problem.field.starts_with(&field)
        };
        if self.found.iter().any(said) {
            return;
        }
        let text = node.as_text().unwrap_or_default();
        let message = words.message.replace("{}", &shorten(text));
        let problem = Problem::error(&field, place, message, words.hint.clone());
        self.found.push(Found {
            problem,
            yields: words.yields,
        });
    }
}

fn place_of(key: &Key, node: &Node) -> Place {
    match node.value {
        Value::Map(_) | Value::List(_) => key.place,
        _ => node.place,
    }
}

/// A value as rules see it, without its schema.
fn as_seen(node: &Node) -> Boxed<'_> {
    match &node.value {
        Value::List(items) => cel::list(items.iter().map(as_seen).collect::<Vec<_>>()),
        Value::Map(entries) => cel::map(
            entries
                .iter()
                .map(|(key, node)| (key.text.as_str(), as_seen(node)))
                .collect(),
        ),
        _ => cel::scalar(node),
    }
}

/// The items of a list with which a rule ceases to hold; none if it never held.
fn culprits(count: usize, holds: impl Fn(&[usize]) -> bool) -> Vec<usize> {
    let all: Vec<usize> = (0..count).collect();
    if count > SEARCHED {
        let (mut held, mut broken) = (0, count);
        while held + 1 < broken {
            let middle = held.midpoint(broken);
            if holds(&all[..middle]) {
                held = middle;
            } else {
                broken = middle;
            }
        }
        return vec![broken - 1];
    }
    let mut innocent = Vec::new();
    let mut guilty = Vec::new();
    for i in all {
        innocent.push(i);
        if !holds(&innocent) {
            innocent.pop();
            guilty.push(i);
        }
    }
    guilty
}
