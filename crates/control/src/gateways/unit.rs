//! What one proxy serves: a Gateway, or all Gateways of a class that share one.

use std::collections::BTreeMap;
use std::fmt;

use config::kind::authentication_policy::SYSTEM_NAMESPACE;
use config::kind::gateway_class::merges_gateways;
use config::{Object, ObjectKey, ObjectKind, Spec};

use crate::state::State;

/// What one proxy serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Unit {
    /// A Gateway.
    Gateway(ObjectKey),
    /// The Gateways of a class.
    Class(String),
}

impl Unit {
    /// What a Gateway is served in; `None` for other objects.
    pub(crate) fn of(gateway: &Object, state: &State) -> Option<Self> {
        let Spec::Gateway(spec) = &gateway.spec else {
            return None;
        };
        let class = &spec.gateway_class_name;
        Some(if Self::is_merged(class, state) {
            Self::Class(class.clone())
        } else {
            Self::Gateway(gateway.key.clone())
        })
    }

    /// The Gateways that are accepted, by what they are served in.
    pub(crate) fn all(state: &State) -> BTreeMap<Self, Vec<ObjectKey>> {
        let distribution = state.distribution();
        let mut units: BTreeMap<Self, Vec<ObjectKey>> = BTreeMap::new();
        for entry in state.list(ObjectKind::Gateway, None) {
            let key = &entry.object.key;
            if distribution.is_accepted(key)
                && let Some(unit) = Self::of(&entry.object, state)
            {
                units.entry(unit).or_default().push(key.clone());
            }
        }
        units
    }

    /// Whether one proxy serves all Gateways of a class.
    pub(crate) fn is_merged(class: &str, state: &State) -> bool {
        let key = ObjectKey::new(ObjectKind::GatewayClass, "", class);
        state.find(&key).is_some_and(|c| merges_gateways(&c.object))
    }

    /// The object with which it comes and goes.
    pub(crate) fn owner(&self) -> ObjectKey {
        match self {
            Self::Gateway(key) => key.clone(),
            Self::Class(class) => ObjectKey::new(ObjectKind::GatewayClass, "", class),
        }
    }

    /// The `node.id` of its proxies.
    pub(crate) fn node_id(&self) -> String {
        match self {
            Self::Gateway(_) => format!("gateway/{self}"),
            Self::Class(class) => format!("gateway-class/{class}"),
        }
    }

    /// How `tulle gateway` is told.
    pub(crate) fn arguments(&self) -> [String; 2] {
        match self {
            Self::Gateway(_) => ["--name".to_owned(), self.to_string()],
            Self::Class(class) => ["--class".to_owned(), class.clone()],
        }
    }

    /// Namespace and name of the service account as which its proxies run.
    pub(crate) fn account(&self) -> (&str, &str) {
        match self {
            Self::Gateway(key) => (&key.namespace, &key.name),
            Self::Class(class) => (SYSTEM_NAMESPACE, class),
        }
    }
}

impl fmt::Display for Unit {
    /// `namespace/name` of a Gateway, the name of a class.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(key) => write!(f, "{}/{}", key.namespace, key.name),
            Self::Class(class) => f.write_str(class),
        }
    }
}
