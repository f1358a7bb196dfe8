//! Change sets: what sources, the HTTP API and the registry want done, all of it or none.

use std::fmt;
use std::sync::Arc;

use config::{Diagnostic, Object, ObjectKey};

use crate::store::StoreError;
use crate::store::lease::Lease;
use crate::store::token::Token;

/// Who an object belongs to: only its owner changes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The HTTP API.
    Api,
    /// A program that registered itself.
    Registry,
    /// A file.
    File(Arc<str>),
    /// The API server of Kubernetes.
    Kubernetes,
}

impl Origin {
    /// As the store keeps it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Api => "api".to_owned(),
            Self::Registry => "registry".to_owned(),
            Self::File(path) => format!("file:{path}"),
            Self::Kubernetes => "kubernetes".to_owned(),
        }
    }

    /// Reads what [`Origin::to_text`] wrote.
    pub fn from_text(text: &str) -> Self {
        match text.strip_prefix("file:") {
            Some(path) => Self::File(path.into()),
            None if text == "registry" => Self::Registry,
            None if text == "kubernetes" => Self::Kubernetes,
            None => Self::Api,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("the HTTP API (`tulle apply`)"),
            Self::Registry => f.write_str("a running program that registered itself"),
            Self::File(path) => write!(f, "the file {path}"),
            Self::Kubernetes => f.write_str("Kubernetes"),
        }
    }
}

/// A change of one object.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is to be as given.
    Put {
        /// The object.
        object: Arc<Object>,
        /// Whose it is.
        origin: Origin,
    },
    /// It is to be gone.
    Delete {
        /// Which.
        key: ObjectKey,
        /// Who wants it gone.
        origin: Origin,
    },
}

impl Change {
    /// The object's key.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Put { object, .. } => &object.key,
            Self::Delete { key, .. } => key,
        }
    }
}

/// What the store writes in the same transaction.
#[derive(Debug, Clone)]
pub enum Also {
    /// A lease, new or renewed.
    Lease {
        /// The lease.
        lease: Lease,
        /// Its workload's place in [`crate::address::Pool::Workloads`].
        place: Option<u32>,
    },
    /// The end of a lease, and of its workload's address.
    EndLease(String),
    /// A new join token.
    Token(Token),
    /// The use of a join token; the whole set fails when it was used already.
    Spend {
        /// The token's public part.
        id: String,
        /// Who used it.
        by: String,
        /// When, in seconds since 1970.
        now: u64,
    },
}

/// What happens to the rest of a set when some of it belongs to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Nothing of the set is done.
    #[default]
    Refuse,
    /// The rest is done, the conflicts are reported.
    Skip,
}

/// Changes that belong together.
#[derive(Debug, Clone, Default)]
pub struct ChangeSet {
    /// In order.
    pub changes: Vec<Change>,
    /// For the audit log.
    pub who: String,
    /// Written with them.
    pub also: Vec<Also>,
    /// See [`OnConflict`].
    pub on_conflict: OnConflict,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was not there before.
    Created,
    /// It was there, and different.
    Configured,
    /// It was there just so.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl Action {
    /// The word in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

/// What became of a set.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// What became of each object.
    pub actions: Vec<(ObjectKey, Action)>,
    /// What the objects have wrong without being refused.
    pub warnings: Vec<Diagnostic>,
    /// What was skipped ([`OnConflict::Skip`]).
    pub conflicts: Vec<Conflict>,
}

/// A change that its object's owner would have to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which object.
    pub key: ObjectKey,
    /// What is the matter.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.message, self.hint)
    }
}

/// Why a set was not applied; nothing of it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else owns what it would change.
    #[error("{0}")]
    Conflict(Conflict),
    /// There is nothing to delete.
    #[error("{0} does not exist")]
    NotFound(ObjectKey),
    /// A join token was used by somebody quicker.
    #[error(
        "the join token was used already; each is good once: make another with `tulle token create`"
    )]
    TokenSpent,
    /// No address is left.
    #[error(transparent)]
    Exhausted(#[from] crate::address::Exhausted),
    /// The store could not write it.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The control plane is stopping.
    #[error("the control plane is stopping; try again when it is back")]
    Stopping,
}

/// Whether `new` may change what `old` owns; otherwise what to say.
pub fn may_change(key: &ObjectKey, old: &Origin, new: &Origin) -> Result<(), Conflict> {
    let refuse = |message: String, hint: String| {
        Err(Conflict {
            key: key.clone(),
            message,
            hint,
        })
    };
    // A service that the registry made up gives way to one that somebody wrote.
    let made_up = *old == Origin::Registry && key.kind == config::ObjectKind::Service;
    match (old, new) {
        _ if old == new || made_up => Ok(()),
        (Origin::File(_), Origin::File(_)) => Ok(()),
        (Origin::File(path), _) => refuse(
            format!("it belongs to the file {path}"),
            format!(
                "edit that file, or take the object out of it and try again; {path} is watched"
            ),
        ),
        (Origin::Api, _) => refuse(
            format!("it already exists and belongs to {old}"),
            format!(
                "delete it first (`tulle delete {} {}{}`), or change it with `tulle apply` instead",
                key.kind.as_str().to_lowercase(),
                key.name,
                in_namespace(key),
            ),
        ),
        (Origin::Kubernetes, _) => refuse(
            "it belongs to Kubernetes".to_owned(),
            format!(
                "change it there, with `kubectl edit {} {}{}`: the control plane follows its API server",
                key.kind.as_str().to_lowercase(),
                key.name,
                in_namespace(key),
            ),
        ),
        (Origin::Registry, _) => refuse(
            format!("it belongs to {old}"),
            "stop that program, or choose another name".to_owned(),
        ),
    }
}

/// The option of a command that says where an object is.
fn in_namespace(key: &ObjectKey) -> String {
    if key.namespace.is_empty() {
        String::new()
    } else {
        format!(" -n {}", key.namespace)
    }
}
