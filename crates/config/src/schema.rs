//! The schemas of Gateway API's kinds, from their CRDs: what the API server would refuse is refused
//! in files too, and what it would fill in is filled in.
//!
//! `crd/` holds what `cargo xtask gen` keeps of the CRDs; nothing here is written by hand but words
//! (`words`). A schema is read when an object of its kind is met, patterns and rules are compiled
//! when they are first needed, and all of it goes when nobody holds [`Schemas`]: a proxy that has
//! read its files keeps nothing.
//!
//! What is said of a field by the typed shapes (`decode`) and by the checks of
//! [`crate::kind`] is said better, and goes before what is said here of the same field.

mod cel;
mod default;
mod judge;
mod pattern;
mod shape;
mod words;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use serde::Deserialize;

use self::cel::{Functions, Program};
use self::pattern::Patterns;
use self::shape::Schema;
use crate::yaml::Node;

pub(crate) use self::judge::Found;

/// The schemas in memory, empty until they are needed. [`crate::parse`] makes them where they are
/// not; who calls it for many texts holds them meanwhile, so that they are read once.
#[derive(Clone)]
pub struct Schemas(Arc<Inner>);

struct Inner {
    kinds: [OnceLock<Option<Versions>>; FILES.len()],
    patterns: Patterns,
    programs: Mutex<HashMap<Box<str>, Option<Arc<Program>>>>,
    functions: OnceLock<Functions>,
}

/// Kinds and their files.
const FILES: [(&str, &str); 10] = [
    (
        "BackendTLSPolicy",
        include_str!("schema/crd/backendtlspolicies.json"),
    ),
    ("GRPCRoute", include_str!("schema/crd/grpcroutes.json")),
    ("Gateway", include_str!("schema/crd/gateways.json")),
    (
        "GatewayClass",
        include_str!("schema/crd/gatewayclasses.json"),
    ),
    ("HTTPRoute", include_str!("schema/crd/httproutes.json")),
    ("ListenerSet", include_str!("schema/crd/listenersets.json")),
    (
        "ReferenceGrant",
        include_str!("schema/crd/referencegrants.json"),
    ),
    ("TCPRoute", include_str!("schema/crd/tcproutes.json")),
    ("TLSRoute", include_str!("schema/crd/tlsroutes.json")),
    ("UDPRoute", include_str!("schema/crd/udproutes.json")),
];

/// A file of `crd/`.
#[derive(Deserialize)]
struct File {
    content: Versions,
}

/// The schemas of one kind.
#[derive(Deserialize)]
struct Versions {
    /// Version to index of `schemas`.
    #[serde(rename = "versions")]
    served: BTreeMap<Box<str>, usize>,
    /// Schemas of `spec`.
    schemas: Vec<Schema>,
    /// Whether there are rules about changes.
    #[serde(skip)]
    about_changes: OnceLock<bool>,
}

static SHARED: Mutex<Weak<Inner>> = Mutex::new(Weak::new());

impl Schemas {
    /// Those in memory, or new ones.
    pub fn shared() -> Self {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = shared.upgrade() {
            return Self(inner);
        }
        let inner = Arc::new(Inner {
            kinds: std::array::from_fn(|_| OnceLock::new()),
            patterns: Patterns::default(),
            programs: Mutex::default(),
            functions: OnceLock::new(),
        });
        *shared = Arc::downgrade(&inner);
        Self(inner)
    }

    /// Fills in the defaults of `spec` and says what is wrong with it. Kinds without a schema are
    /// left as they are.
    pub(crate) fn fill_and_judge(&self, kind: &str, version: &str, spec: &mut Node) -> Vec<Found> {
        let Some(schema) = self.find(kind, version) else {
            return Vec::new();
        };
        default::fill(schema, spec);
        judge::judge(self, schema, spec, None)
    }

    /// What rules about changes have against putting `new` in the place of `old`.
    pub(crate) fn judge_change(
        &self,
        kind: &str,
        version: &str,
        [old, new]: [&Node; 2],
    ) -> Vec<Found> {
        match self.find(kind, version) {
            Some(schema) => judge::judge(self, schema, new, Some(old)),
            None => Vec::new(),
        }
    }

    /// Whether a kind has rules about changes.
    pub(crate) fn knows_changes(&self, kind: &str) -> bool {
        self.versions(kind).is_some_and(|versions| {
            let any = || versions.schemas.iter().any(Schema::knows_changes);
            *versions.about_changes.get_or_init(any)
        })
    }

    fn find(&self, kind: &str, version: &str) -> Option<&Schema> {
        let kind = self.versions(kind)?;
        kind.schemas.get(*kind.served.get(version)?)
    }

    fn versions(&self, kind: &str) -> Option<&Versions> {
        let at = FILES.iter().position(|(of, _)| *of == kind)?;
        let read = || {
            let file: Result<File, _> = serde_json::from_str(FILES[at].1);
            debug_assert!(file.is_ok(), "{kind}: {:?}", file.err());
            Some(file.ok()?.content)
        };
        self.0.kinds[at].get_or_init(read).as_ref()
    }

    fn functions(&self) -> &Functions {
        self.0.functions.get_or_init(Functions::new)
    }

    /// A rule, compiled when it is first asked for; those of the same text share that.
    fn program(&self, text: &str, kept: &OnceLock<Option<Arc<Program>>>) -> Option<Arc<Program>> {
        let compile = || {
            let programs = self.0.programs.lock();
            let mut programs = programs.unwrap_or_else(PoisonError::into_inner);
            if let Some(program) = programs.get(text) {
                return program.clone();
            }
            let program = Program::compile(text);
            debug_assert!(program.is_ok(), "{text}: {:?}", program.err());
            let program = program.ok().map(Arc::new);
            programs.insert(text.into(), program.clone());
            program
        };
        kept.get_or_init(compile).clone()
    }
}
