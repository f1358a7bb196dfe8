//! From objects as the API server returns them to objects of the model.
//!
//! Gateway API's kinds and Tulle's own are read as they are in files: the same reader, the same
//! findings. Kubernetes' core kinds carry much that means nothing in a mesh, with values that no
//! file would be allowed (a Service of type `ExternalName`, ports for SCTP): of these only what the
//! model needs is taken, by name, and the rest is left where it is. Of Pods, of which there may be
//! many, and of Nodes that is very little ([`slim`]).

use config::kind::pod::{NODE_LABELS, POD_LABELS};
use config::{Diagnostic, Object, ObjectKey, ObjectKind};
use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

/// What became of an object.
#[derive(Debug)]
pub(super) enum Converted {
    /// It is in the model.
    Object(Box<Object>),
    /// It means nothing in a mesh, as if it were not there.
    Ignored,
    /// It is wrong: what it said before stays in force.
    Refused(Vec<Diagnostic>),
}

/// Where users' root certificates stand (Gateway API).
const ROOTS: &str = "ca.crt";
/// What Kubernetes puts into each namespace by itself.
const NOISE: [&str; 2] = ["kube-root-ca.crt", "openshift-service-ca.crt"];
/// Too large to keep, and says only what the object says.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The values of a Secret that are meant for a mesh: a certificate, its key, root certificates.
const CERTIFICATES: [&str; 3] = ["tls.crt", "tls.key", ROOTS];

/// What of a Pod is of interest: who it is and where.
const OF_POD: [&str; 2] = ["serviceAccountName", "nodeName"];

/// Takes from an object what nobody here wants, before it waits for anybody: who wrote which field,
/// which is half of an object's size; of a Secret all values but certificates; of a Pod all but who
/// it is and where; of a Node all but where that is.
pub(super) fn slim(kind: ObjectKind, mut object: DynamicObject) -> DynamicObject {
    object.metadata.managed_fields = None;
    match kind {
        ObjectKind::Secret => {
            let values = object.data.get("data").cloned().unwrap_or_default();
            let mut data = pick(&object.data, &["type"]);
            data["data"] = pick(&values, &CERTIFICATES);
            object.data = data;
        }
        ObjectKind::Pod => {
            let spec = object.data.get("spec").cloned().unwrap_or_default();
            object.data = json!({"spec": pick(&spec, &OF_POD)});
            keep_labels(&mut object, &POD_LABELS);
        }
        ObjectKind::Node => {
            object.data = json!({});
            keep_labels(&mut object, &NODE_LABELS);
        }
        _ => {}
    }
    object
}

/// Keeps name, namespace and these labels of an object's metadata.
fn keep_labels(object: &mut DynamicObject, kept: &[&str]) {
    let mut old = std::mem::take(&mut object.metadata);
    if let Some(labels) = &mut old.labels {
        labels.retain(|label, _| kept.contains(&label.as_str()));
    }
    object.metadata.name = old.name;
    object.metadata.namespace = old.namespace;
    object.metadata.resource_version = old.resource_version;
    object.metadata.labels = old.labels.filter(|labels| !labels.is_empty());
}

/// Name and namespace of an object; `None` for one without a name, which no API server returns.
pub(super) fn key_of(kind: ObjectKind, object: &DynamicObject) -> Option<ObjectKey> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    Some(ObjectKey::new(
        kind,
        namespace,
        object.metadata.name.as_deref()?,
    ))
}

/// Makes an object of the model.
pub(super) fn convert(kind: ObjectKind, object: &DynamicObject) -> Converted {
    let data = &object.data;
    let mut whole = match kind {
        ObjectKind::Service => match service(data) {
            Some(spec) => json!({"spec": spec}),
            None => return Converted::Ignored,
        },
        ObjectKind::ServiceImport => match service_import(data) {
            Some(spec) => json!({"spec": spec}),
            None => return Converted::Ignored,
        },
        ObjectKind::EndpointSlice => match endpoint_slice(data) {
            Some(slice) => slice,
            None => return Converted::Ignored,
        },
        ObjectKind::Pod => {
            let spec = data.get("spec").cloned().unwrap_or_default();
            json!({"spec": pick(&spec, &OF_POD)})
        }
        ObjectKind::Secret => match secret(data) {
            Some(secret) => secret,
            None => return Converted::Ignored,
        },
        ObjectKind::ConfigMap => match config_map(object) {
            Some(map) => map,
            None => return Converted::Ignored,
        },
        ObjectKind::Namespace | ObjectKind::Node => json!({}),
        _ => pick(data, &["spec"]),
    };
    let api_version = match &object.types {
        Some(types) if !types.api_version.is_empty() => types.api_version.clone(),
        _ => kind.api_version(),
    };
    if let Some(fields) = whole.as_object_mut() {
        fields.insert("apiVersion".to_owned(), api_version.into());
        fields.insert("kind".to_owned(), kind.as_str().into());
        fields.insert("metadata".to_owned(), metadata(object));
    }
    match Object::from_json("", whole) {
        Ok(object) => Converted::Object(Box::new(object)),
        Err(diagnostics) => Converted::Refused(diagnostics),
    }
}

/// Without the resource version, which is not that of the store, and without bookkeeping.
fn metadata(object: &DynamicObject) -> Value {
    let own = &object.metadata;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            fields.insert(name.to_owned(), value);
        }
    };
    put("name", own.name.clone().into());
    put("namespace", own.namespace.clone().into());
    put("uid", own.uid.clone().into());
    put("generation", own.generation.into());
    put("creationTimestamp", json!(own.creation_timestamp));
    put("labels", json!(own.labels));
    let mut annotations = own.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    put("annotations", json!(annotations));
    fields.into()
}

/// Some fields of a map; those that are not there or null are left out.
fn pick(value: &Value, fields: &[&str]) -> Value {
    let found = fields.iter().filter_map(|field| {
        let value = value.get(field).filter(|value| !value.is_null())?;
        Some(((*field).to_owned(), value.clone()))
    });
    found.collect::<Map<_, _>>().into()
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Ports for transports that the mesh carries, each with these fields.
fn ports(value: &Value, fields: &[&str]) -> Value {
    let carried = |port: &&Value| {
        matches!(
            port.get("protocol").and_then(Value::as_str),
            None | Some("TCP" | "UDP")
        ) && port.get("port").is_some_and(|number| !number.is_null())
    };
    items(value, "ports")
        .iter()
        .filter(carried)
        .map(|port| pick(port, fields))
        .collect()
}

/// A name of somewhere else is no Service of the mesh (and a known way around its borders).
fn service(data: &Value) -> Option<Value> {
    let spec = data.get("spec")?;
    if spec.get("type").and_then(Value::as_str) == Some("ExternalName") {
        return None;
    }
    let mut service = pick(spec, &["selector", "clusterIP", "clusterIPs"]);
    let fields = ["name", "port", "targetPort", "protocol", "appProtocol"];
    service["ports"] = ports(spec, &fields);
    // PreferSameNode asks for more than is known; without it endpoints are as good as they were.
    if let Some(word @ ("PreferClose" | "PreferSameZone")) =
        spec.get("trafficDistribution").and_then(Value::as_str)
    {
        service["trafficDistribution"] = word.into();
    }
    Some(service)
}

/// What affinity its controller gives it, it has from the Services that were exported.
fn service_import(data: &Value) -> Option<Value> {
    let spec = data.get("spec")?;
    let mut import = pick(spec, &["type", "ips"]);
    import["ports"] = ports(spec, &["name", "port", "protocol", "appProtocol"]);
    Some(import)
}

/// A slice without endpoints, or of names instead of addresses, says nothing.
fn endpoint_slice(data: &Value) -> Option<Value> {
    let address_type = data.get("addressType").and_then(Value::as_str)?;
    if !matches!(address_type, "IPv4" | "IPv6") {
        return None;
    }
    let endpoints: Vec<Value> = items(data, "endpoints")
        .iter()
        .map(|endpoint| {
            let mut slim = pick(endpoint, &["addresses", "nodeName", "zone"]);
            if let Some(conditions) = endpoint.get("conditions") {
                slim["conditions"] = pick(conditions, &["ready", "serving", "terminating"]);
            }
            if let Some(target) = endpoint.get("targetRef") {
                slim["targetRef"] = pick(target, &["kind", "namespace", "name"]);
            }
            slim
        })
        .collect();
    if endpoints.is_empty() {
        return None;
    }
    Some(json!({
        "addressType": address_type,
        "endpoints": endpoints,
        "ports": ports(data, &["name", "port", "protocol", "appProtocol"]),
    }))
}

/// Certificates with their keys, and root certificates; the values that are meant for these alone.
fn secret(data: &Value) -> Option<Value> {
    let values = data.get("data").cloned().unwrap_or_default();
    let values = pick(&values, &CERTIFICATES);
    if values.as_object().is_none_or(Map::is_empty) {
        return None;
    }
    let mut secret = pick(data, &["type"]);
    secret["data"] = values;
    Some(secret)
}

/// Of all ConfigMaps those that users put root certificates into.
fn config_map(object: &DynamicObject) -> Option<Value> {
    if object
        .metadata
        .name
        .as_deref()
        .is_some_and(|name| NOISE.contains(&name))
    {
        return None;
    }
    let roots = |field: &str| {
        let values = object.data.get(field).cloned().unwrap_or_default();
        pick(&values, &[ROOTS])
    };
    let (data, binary) = (roots("data"), roots("binaryData"));
    let empty = |value: &Value| value.as_object().is_none_or(Map::is_empty);
    if empty(&data) && empty(&binary) {
        return None;
    }
    Some(json!({"data": data, "binaryData": binary}))
}

#[cfg(test)]
mod tests;
