//! CEL rules (`x-kubernetes-validations`): the one module that knows the CEL library.
//!
//! Of the functions that Kubernetes adds to CEL, those are there that the rules of Gateway API use;
//! a test goes through all rules. As at the API server, a rule whose evaluation fails is broken.
//!
//! Nothing bounds the steps of an evaluation but the sizes of what it is about. So rules are only
//! asked about values that keep the bounds which the schema sets to them, and those bounds are such
//! that the API server accepted the rules' costs.

mod function;
mod value;

use std::sync::Arc;

use ::cel::common::types::{CelBool, CelString};
use ::cel::parser::{Expression, PrattParser};
use ::cel::{Context, Env, Value};

pub(super) use value::{Boxed, list, map, scalar};

/// A rule, ready to be asked.
pub(super) struct Program {
    expression: Expression,
    /// Whether it is about a change, and so has nothing to say about a new object.
    pub(super) about_change: bool,
}

/// What rules may use.
pub(super) struct Functions(Arc<Env>);

/// What a rule is asked about.
pub(super) struct Subject<'v> {
    /// `self`.
    pub(super) value: Boxed<'v>,
    /// `oldSelf`, for rules about changes.
    pub(super) old: Option<Boxed<'v>>,
}

impl Functions {
    pub(super) fn new() -> Self {
        Self(Arc::new(function::environment()))
    }
}

impl Program {
    /// Reads a rule. The message is the library's.
    pub(super) fn compile(rule: &str) -> Result<Self, String> {
        let parsed = PrattParser::new().parse(rule);
        let expression = parsed.map_err(|errors| errors.to_string())?;
        let about_change = expression.references().has_variable("oldSelf");
        Ok(Self {
            expression,
            about_change,
        })
    }

    /// Whether the rule holds.
    pub(super) fn holds(&self, subject: Subject<'_>, functions: &Functions) -> bool {
        let context = context(subject, functions);
        Value::resolve_val(&self.expression, &context)
            .is_ok_and(|value| value.downcast_ref::<CelBool>().is_some_and(|b| *b.inner()))
    }

    /// The text that it makes (`messageExpression`).
    pub(super) fn text(&self, subject: Subject<'_>, functions: &Functions) -> Option<String> {
        let context = context(subject, functions);
        let value = Value::resolve_val(&self.expression, &context).ok()?;
        let text = value.downcast_ref::<CelString<'_>>()?;
        Some(text.inner().to_owned()).filter(|text| !text.trim().is_empty())
    }

    /// The functions that it calls, operators and macros aside.
    #[cfg(test)]
    pub(super) fn unknown_functions(&self, functions: &Functions) -> Vec<String> {
        let references = self.expression.references();
        let names = references.functions().into_iter();
        let named = names.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
        // What is declared cannot be declared again.
        let mut context = Context::with_env(Arc::clone(&functions.0));
        named
            .filter(|name| context.add_function(name, || true).is_ok())
            .map(str::to_owned)
            .collect()
    }
}

fn context<'p, 'v>(subject: Subject<'v>, functions: &Functions) -> Context<'p, 'v> {
    let mut context = Context::with_env(Arc::clone(&functions.0));
    context.add_variable_as_val("self", subject.value);
    if let Some(old) = subject.old {
        context.add_variable_as_val("oldSelf", old);
    }
    context
}
