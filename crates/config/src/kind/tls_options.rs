//! `options` of TLS, at listeners and in `BackendTLSPolicy`: what of it is spoken.
//!
//! Gateway API leaves their names to implementations. Those of others are no error; they have no
//! effect here, which is a warning. What is wrong with Tulle's own is an error: to go on with less
//! than somebody asked for would be worse than not at all.

use std::collections::BTreeMap;

use model::tls::{Code, GROUPS, SUITES, TlsOptions, TlsVersion};

use crate::check::Check;
use crate::diagnostic::Severity;
use crate::reference::shorten;
use crate::suggest;

const MIN_VERSION: &str = "tulle.dev/min-version";
const GROUPS_KEY: &str = "tulle.dev/key-exchange-groups";
const SUITES_KEY: &str = "tulle.dev/cipher-suites";
const KNOWN: [&str; 3] = [MIN_VERSION, GROUPS_KEY, SUITES_KEY];

type Options = BTreeMap<String, String>;

/// What is wrong with an option, and what to do about it.
struct Wrong {
    severity: Severity,
    message: String,
    hint: String,
}

impl Wrong {
    fn error(message: String, hint: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message,
            hint: hint.into(),
        }
    }
}

/// Reports what is wrong; the check stands at what has the options.
pub(crate) fn check(options: &Options, c: &mut Check<'_>) {
    c.at("options", |c| {
        let mut read = TlsOptions::default();
        for (key, value) in options {
            if let Err(wrong) = take(&mut read, key, value) {
                c.at_key(key, |c| c.found(wrong.severity, wrong.message, wrong.hint));
            }
        }
        let mut suites = read.suites.iter();
        let none = !read.suites.is_empty() && !suites.any(|suite| suite.is_of_tls_13());
        if read.min_version == TlsVersion::V1_3 && none {
            let message = "has no cipher suite of TLS 1.3, below which nothing is spoken";
            c.at_key(SUITES_KEY, |c| {
                c.found(Severity::Error, message, "add TLS_AES_256_GCM_SHA384");
            });
        }
    });
}

/// What the options mean that were checked.
pub(crate) fn to_model(options: &Options) -> TlsOptions {
    let mut read = TlsOptions::default();
    for (key, value) in options {
        // Only those of others are left to be wrong.
        drop(take(&mut read, key, value));
    }
    read
}

fn take(read: &mut TlsOptions, key: &str, value: &str) -> Result<(), Wrong> {
    match key {
        MIN_VERSION => read.min_version = version(value)?,
        GROUPS_KEY => read.groups = codes(value, &GROUPS)?,
        SUITES_KEY => read.suites = codes(value, &SUITES)?,
        _ => {
            return Err(Wrong {
                severity: Severity::Warning,
                message: "is not an option of Tulle, and has no effect".to_owned(),
                hint: suggest::hint(key, KNOWN),
            });
        }
    }
    Ok(())
}

fn version(value: &str) -> Result<TlsVersion, Wrong> {
    match value {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        _ => {
            let message = format!(
                "\"{}\" is not a version of TLS that is spoken",
                shorten(value)
            );
            Err(Wrong::error(message, "write \"1.2\" or \"1.3\""))
        }
    }
}

/// A list of names, separated by commas.
fn codes(value: &str, all: &'static [Code]) -> Result<Vec<&'static Code>, Wrong> {
    let mut found: Vec<&'static Code> = Vec::new();
    for name in value.split(',').map(str::trim) {
        let Some(code) = Code::named(all, name) else {
            let message = format!("has \"{}\", which is not spoken", shorten(name));
            let names: Vec<&str> = all.iter().map(|code| code.name).collect();
            let hint = format!(
                "write some of {}, with commas between them",
                names.join(", ")
            );
            return Err(Wrong::error(message, hint));
        };
        if !found.contains(&code) {
            found.push(code);
        }
    }
    Ok(found)
}
