//! The functions of rules: the standard ones, the strings extension, and of Kubernetes' those that
//! the rules use.
//!
//! A duration is a whole number of nanoseconds here: rules only compare them.
#![expect(
    clippy::needless_pass_by_value,
    reason = "the library calls functions of this form"
)]

use std::net::IpAddr;

use ::cel::common::types::{CelBool, CelInt, CelString, STRING_TYPE};
use ::cel::common::value::CowVal;
use ::cel::{DeclarationError, Env, ExecutionError, extensions};

use crate::duration;
use crate::schema::pattern;

type Arguments<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Returned<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// All that rules may use.
pub(super) fn environment() -> Env {
    let mut env = Env::stdlib();
    // The names are ours and differ, so that nothing can be declared twice; a test would see it.
    let declared = declare(&mut env);
    debug_assert!(declared.is_ok(), "{declared:?}");
    env
}

fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_extension(extensions::strings)?;
    env.add_member_overload(
        "matches",
        "string_matches_string",
        STRING_TYPE,
        vec![STRING_TYPE],
        matches,
    )?;
    env.add_overload("isIP", "is_ip_string", vec![STRING_TYPE], is_ip)?;
    env.add_overload("duration", "duration_string", vec![STRING_TYPE], span)?;
    Ok(())
}

fn text<'a>(arguments: &'a [CowVal<'_, '_>], at: usize) -> Result<&'a str, ExecutionError> {
    arguments
        .get(at)
        .and_then(|argument| argument.downcast_ref::<CelString<'_>>())
        .map(CelString::inner)
        .ok_or_else(ExecutionError::missing_argument_or_target)
}

fn matches<'b, 'v>(arguments: Arguments<'b, 'v>) -> Returned<'b, 'v> {
    let found = pattern::matches(text(&arguments, 1)?, text(&arguments, 0)?)
        .ok_or_else(|| ExecutionError::function_error("matches", "no regular expression"))?;
    Ok(CowVal::owned(CelBool::from(found)))
}

/// Kubernetes does not take IPv4 addresses in IPv6's clothes for addresses.
fn is_ip<'b, 'v>(arguments: Arguments<'b, 'v>) -> Returned<'b, 'v> {
    let address = text(&arguments, 0)?.parse();
    let is = match address {
        Ok(IpAddr::V4(_)) => true,
        Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().is_none(),
        Err(_) => false,
    };
    Ok(CowVal::owned(CelBool::from(is)))
}

fn span<'b, 'v>(arguments: Arguments<'b, 'v>) -> Returned<'b, 'v> {
    let nanos = duration::read(text(&arguments, 0)?)
        .and_then(|span| i64::try_from(span.as_nanos()).ok())
        .ok_or_else(|| ExecutionError::function_error("duration", "no duration"))?;
    Ok(CowVal::owned(CelInt::from(nanos)))
}
