//! `ReferenceGrant` (Gateway API): who may refer to objects of its namespace.

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::reference::check_name;

/// `spec` of a `ReferenceGrant`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// A kind of object in some namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantFrom {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
}

/// Objects of the grant's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantTo {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ReferenceGrantSpec {
    pub(crate) fn check(&self, c: &mut Check<'_>) {
        c.at("spec", |c| {
            c.each("to", &self.to, |c, to| {
                if let Some(name) = &to.name {
                    check_name("name", name, c);
                }
            });
        });
    }

    /// Whether objects of a group, kind and namespace may refer to the object of its own namespace
    /// that has this group, kind and name.
    pub fn allows(&self, who: (&str, &str, &str), what: (&str, &str, &str)) -> bool {
        let from = |f: &GrantFrom| (&*f.group, &*f.kind, &*f.namespace) == who;
        let to = |t: &GrantTo| {
            let group = if t.group == "core" { "" } else { &t.group };
            (group, &*t.kind) == (what.0, what.1)
                && t.name.as_deref().is_none_or(|name| name == what.2)
        };
        self.from.iter().any(from) && self.to.iter().any(to)
    }
}
