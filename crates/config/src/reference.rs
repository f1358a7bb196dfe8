//! References from one object to another, and the checks that all of them share.

use model::name;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::kind::gateway::DefaultScope;
use crate::kind::{GATEWAY_GROUP, MCS_GROUP, ObjectKind};
use crate::object::ObjectKey;

/// The parent that a route attaches to, as in `spec.parentRefs` and `status.parents`; for
/// policies, the target that a condition is about (`status.ancestors`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// API group; empty for a Service. Gateway API's default is its own group.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind.
    #[serde(default = "gateway_kind")]
    pub kind: String,
    /// Namespace; that of the route if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Name of the parent's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// Number of the parent's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What a policy attaches to: an object of the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API group; empty for a Service.
    #[serde(default)]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Name of a part of it: a Service's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

fn gateway_group() -> String {
    GATEWAY_GROUP.to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

impl TargetRef {
    /// As it stands in the conditions of a policy.
    pub(crate) fn as_ancestor(&self) -> ParentRef {
        ParentRef {
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: None,
            name: self.name.clone(),
            section_name: self.section_name.clone(),
            port: None,
        }
    }
}

impl ParentRef {
    /// A Gateway as a whole.
    pub(crate) fn gateway(namespace: &str, name: &str) -> Self {
        Self {
            group: gateway_group(),
            kind: gateway_kind(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
            section_name: None,
            port: None,
        }
    }

    /// Whether it names a `ListenerSet`.
    pub(crate) fn is_listener_set(&self) -> bool {
        self.kind == "ListenerSet" && self.group == GATEWAY_GROUP
    }

    /// Whether it names something with listeners.
    pub(crate) fn has_listeners(&self) -> bool {
        self.is_listener_set() || self.kind == "Gateway" && self.group == GATEWAY_GROUP
    }

    /// Whether it names a Service or `ServiceImport`, for whose clients the route is then.
    pub(crate) fn is_service(&self) -> bool {
        !self.has_listeners()
    }

    /// The Service or `ServiceImport` that it names, seen from a namespace.
    pub(crate) fn service(&self, own: &str) -> ObjectKey {
        let kind = match self.kind.as_str() {
            "ServiceImport" => ObjectKind::ServiceImport,
            _ => ObjectKind::Service,
        };
        let namespace = self.namespace.as_deref().unwrap_or(own);
        ObjectKey::new(kind, namespace, &self.name)
    }
}

/// `spec.parentRefs` of a route (Gateway API's rules).
pub(crate) fn check_parents(parents: &mut [ParentRef], scope: DefaultScope, c: &mut Check<'_>) {
    if parents.is_empty() && scope.is_none() {
        c.warn_at(
            "parentRefs",
            "the route is attached to nothing",
            "name the Gateway, or the Service whose clients it is for",
        );
    }
    c.each("parentRefs", parents, |c, parent| {
        check_parent(parent, c);
    });
}

fn check_parent(parent: &mut ParentRef, c: &mut Check<'_>) {
    if parent.has_listeners() {
        check_name("name", &parent.name, c);
        if let Some(namespace) = &parent.namespace {
            check_namespace("namespace", namespace, c);
        }
        c.mark();
        return;
    }
    if !matches!(parent.kind.as_str(), "Service" | "ServiceImport") {
        c.error_at(
            "kind",
            format!(
                "parents of kind {} are not served by this version",
                parent.kind
            ),
            "name a Gateway or ListenerSet, or a Service: `group: \"\", kind: Service`",
        );
        return;
    }
    match parent.group.as_str() {
        other if parent.kind == "ServiceImport" => {
            if other != MCS_GROUP {
                let message = format!("there is no ServiceImport in the group \"{other}\"");
                c.error_at("group", message, format!("write `group: {MCS_GROUP}`"));
            }
        }
        "" => {}
        // What Gateway API fills in where the user left the group out.
        GATEWAY_GROUP | "core" => {
            c.warn_at(
                "group",
                "a Service is in the core group; taken as such",
                "write `group: \"\"`, which other implementations need",
            );
            parent.group.clear();
        }
        other => {
            let message = format!("there is no Service in the group \"{other}\"");
            c.error_at("group", message, "write `group: \"\"`");
        }
    }
    check_name("name", &parent.name, c);
    if let Some(namespace) = &parent.namespace {
        check_namespace("namespace", namespace, c);
    }
    c.mark();
}

/// `spec.targetRefs` of a policy. `kinds` are those it may have, `later` those of a later version.
pub(crate) fn check_targets(
    targets: &[TargetRef],
    kinds: &[(&str, &str)],
    later: &[&str],
    c: &mut Check<'_>,
) {
    c.at_most("targetRefs", targets.len(), 16);
    if targets.is_empty() {
        c.error_at(
            "targetRefs",
            "a policy without a target does nothing",
            "name what it is for: `targetRefs: [{group: \"\", kind: Service, name: ...}]`",
        );
    }
    let mut seen: Vec<&TargetRef> = Vec::new();
    c.each("targetRefs", targets, |c, target| {
        match kinds.iter().find(|(_, kind)| *kind == target.kind) {
            Some((group, _)) if *group == target.group => {}
            Some((group, kind)) => {
                let message = format!("there is no {kind} in the group \"{}\"", target.group);
                c.error_at("group", message, format!("write `group: \"{group}\"`"));
            }
            None if later.contains(&target.kind.as_str()) => c.error_at(
                "kind",
                format!(
                    "targets of kind {} are not served by this version",
                    target.kind
                ),
                "",
            ),
            None => c.error_at(
                "kind",
                format!(
                    "\"{}\" is nothing that this policy attaches to",
                    target.kind
                ),
                format!(
                    "use {}",
                    kinds.iter().map(|(_, k)| *k).collect::<Vec<_>>().join(", ")
                ),
            ),
        }
        check_name("name", &target.name, c);
        if seen.contains(&target) {
            let message = format!("{} {} is named twice", target.kind, target.name);
            c.error(message, "take one out");
        }
        seen.push(target);
        c.mark();
    });
}

/// The name of an object.
pub(crate) fn check_name(field: &'static str, text: &str, c: &mut Check<'_>) {
    if !name::is_subdomain(text) {
        let message = format!("\"{}\" is not a valid name", shorten(text));
        c.error_at(field, message, NAME_RULE);
    }
}

/// The name of a namespace.
pub(crate) fn check_namespace(field: &'static str, text: &str, c: &mut Check<'_>) {
    if !name::is_label(text) {
        let message = format!("\"{}\" is not a valid namespace", shorten(text));
        c.error_at(field, message, LABEL_RULE);
    }
}

/// What a name may be.
pub(crate) const NAME_RULE: &str =
    "use up to 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends";
/// What a namespace, a Service's name and a port's name may be.
pub(crate) const LABEL_RULE: &str =
    "use up to 63 lower-case letters, digits and '-', with a letter or digit at both ends";

/// As much of a text as fits in a message.
pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() > 60 {
        text.chars().take(57).chain("...".chars()).collect()
    } else {
        text.to_owned()
    }
}
