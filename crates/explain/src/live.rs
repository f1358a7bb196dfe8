//! Objects as a running control plane shows them.
//!
//! It shows no values of Secrets. In their place stand a certificate and a key that are nobody's, so that
//! listeners with TLS can be looked at; nothing can be said about the certificates then.

use std::sync::Arc;

use config::{Diagnostic, Object};
use serde_json::Value;

/// What the control plane shows in place of a Secret's value.
const HIDDEN: &str = "(hidden)";

/// Reads an object.
pub fn object(mut json: Value) -> Result<Arc<Object>, Vec<Diagnostic>> {
    if json.get("kind").and_then(Value::as_str) == Some("Secret") {
        show(&mut json);
    }
    if let Some(fields) = json.as_object_mut() {
        fields.remove("status");
    }
    Object::from_json("", json).map(Arc::new)
}

fn show(secret: &mut Value) {
    let mut shown = serde_json::Map::new();
    for field in ["data", "stringData"] {
        let Some(Value::Object(values)) = secret.get_mut(field) else {
            continue;
        };
        values.retain(|key, value| {
            let hidden = value == HIDDEN;
            if hidden {
                shown.insert(key.clone(), stand_in(key).into());
            }
            !hidden
        });
    }
    if let Some(fields) = secret.as_object_mut()
        && !shown.is_empty()
    {
        let texts = fields
            .entry("stringData")
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Value::Object(texts) = texts {
            texts.append(&mut shown);
        }
    }
}

/// What can be read in place of a value.
fn stand_in(key: &str) -> &'static str {
    let (certificate, own_key) = identity::edge::stand_in();
    if key == "tls.key" {
        own_key
    } else {
        certificate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::World;
    use config::translate::Defaults;
    use serde_json::json;

    #[test]
    fn a_listener_whose_secret_is_hidden_can_be_looked_at() {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "www", "namespace": "shop"},
            "data": {"tls.crt": HIDDEN, "tls.key": HIDDEN},
            "status": {},
        });
        let gateway = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"gatewayClassName": "tulle", "listeners": [{
                "name": "https", "port": 443, "protocol": "HTTPS",
                "tls": {"certificateRefs": [{"name": "www"}]},
            }]},
        });
        let objects = [secret, gateway].map(|json| object(json).expect("valid"));
        let world = World::new(objects, Defaults::default());
        assert_eq!(world.diagnostics, []);
        let listeners = world
            .gateways
            .values()
            .flat_map(super::super::world::Gateway::listeners);
        assert_eq!(listeners.count(), 1);
    }
}
