use std::sync::Arc;

use config::kind::secret::TLS_TYPE;
use config::translate::{Change, Defaults, Translator};
use model::resource::{Key, Resource};

use super::*;

/// An object as the API server would return it.
fn returned(json: Value) -> DynamicObject {
    serde_json::from_value(json).expect("an object")
}

fn converted(kind: ObjectKind, json: Value) -> Object {
    match convert(kind, &returned(json)) {
        Converted::Object(object) => *object,
        other => panic!("{other:?}"),
    }
}

fn resources(objects: Vec<Object>) -> Vec<(Key, Resource)> {
    let mut translator = Translator::new(Defaults::default());
    let changes = objects.into_iter().map(|o| Change::Put(Arc::new(o)));
    translator.apply(changes.collect());
    let mut all: Vec<_> = translator
        .resources()
        .map(|(key, resource)| (key.clone(), resource.clone()))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// What an API server of v1.34 with Gateway API v1.6 returned for the objects of `same.yaml`.
const RETURNED: &str = include_str!("same.json");
const WRITTEN: &str = include_str!("same.yaml");

#[test]
fn the_same_objects_from_files_and_from_kubernetes_give_the_same_model() {
    let parsed = config::parse("same.yaml", WRITTEN);
    assert!(!parsed.has_errors(), "{:#?}", parsed.diagnostics);
    let mut from_files = parsed.objects;
    let items: Vec<Value> = serde_json::from_str(RETURNED).expect("a list");
    let from_cluster: Vec<Object> = items
        .into_iter()
        .filter_map(|json| {
            let word = json["kind"].as_str().expect("a kind").to_owned();
            let kind = ObjectKind::from_word(&word).expect("a kind of the model");
            match convert(kind, &slim(kind, returned(json))) {
                Converted::Object(object) => Some(*object),
                Converted::Ignored => None,
                Converted::Refused(why) => panic!("{why:#?}"),
            }
        })
        .collect();
    assert_eq!(from_cluster.len(), from_files.len());
    for object in &mut from_files {
        // Files have no time of creation; the store gives it.
        let same = from_cluster.iter().find(|o| o.key == object.key);
        object.metadata.created = same.expect("the same object").metadata.created;
    }
    let (files, cluster) = (resources(from_files), resources(from_cluster));
    assert!(files.len() > 10, "{} resources", files.len());
    for (a, b) in files.iter().zip(&cluster) {
        assert_eq!(a, b);
    }
    assert_eq!(files.len(), cluster.len());
}

#[test]
fn metadata_is_kubernetes_own_but_for_the_resource_version() {
    let object = converted(
        ObjectKind::Namespace,
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": "shop", "uid": "u-1", "resourceVersion": "77", "generation": 5,
                "creationTimestamp": "2026-01-31T12:00:00Z", "labels": {"a": "b"},
                "annotations": {LAST_APPLIED: "{}", "note": "x"},
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        }),
    );
    let metadata = &object.metadata;
    assert_eq!(metadata.generation, Some(5));
    assert_eq!(metadata.created, Some(1_769_860_800));
    assert_eq!(metadata.uid.as_deref(), Some("u-1"));
    assert_eq!(metadata.resource_version, None);
    assert_eq!(metadata.annotations.keys().collect::<Vec<_>>(), ["note"]);
}

#[test]
fn a_service_leaves_behind_what_files_may_not_say() {
    let service = |spec: Value| {
        returned(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "cart", "namespace": "shop"}, "spec": spec,
        }))
    };
    let whole = service(json!({
        "type": "LoadBalancer", "clusterIP": "10.160.0.7", "clusterIPs": ["10.160.0.7"],
        "externalName": "", "publishNotReadyAddresses": true, "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
        "trafficDistribution": "PreferClose", "healthCheckNodePort": 30001,
        "loadBalancerSourceRanges": ["10.0.0.0/8"], "selector": {"app": "cart"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP", "nodePort": 30000},
            {"name": "sig", "port": 3868, "protocol": "SCTP"},
        ],
    }));
    let Converted::Object(object) = convert(ObjectKind::Service, &whole) else {
        panic!("refused")
    };
    let config::Spec::Service(spec) = &object.spec else {
        panic!("{object:?}")
    };
    assert_eq!(spec.ports.len(), 1);
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.160.0.7"));
    assert!(spec.traffic_distribution.is_some());

    let node = json!({"trafficDistribution": "PreferSameNode", "ports": [{"port": 80}]});
    let Converted::Object(object) = convert(ObjectKind::Service, &service(node)) else {
        panic!("refused")
    };
    let config::Spec::Service(spec) = &object.spec else {
        panic!("{object:?}")
    };
    assert_eq!(spec.traffic_distribution, None);

    let headless = service(json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    let Converted::Object(object) = convert(ObjectKind::Service, &headless) else {
        panic!("refused")
    };
    assert!(matches!(&object.spec, config::Spec::Service(s) if s.is_headless()));

    let elsewhere = service(json!({"type": "ExternalName", "externalName": "example.com"}));
    assert!(matches!(
        convert(ObjectKind::Service, &elsewhere),
        Converted::Ignored
    ));
}

#[test]
fn an_imported_service_is_what_it_would_be_in_a_file() {
    let import = converted(
        ObjectKind::ServiceImport,
        json!({
            "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceImport",
            "metadata": {"name": "cart", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
            "spec": {
                "type": "ClusterSetIP", "ips": ["10.42.42.42"], "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
                "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http"},
                    {"name": "sig", "port": 3868, "protocol": "SCTP"},
                ],
            },
            "status": {"clusters": [{"cluster": "east"}]},
        }),
    );
    let slice = converted(
        ObjectKind::EndpointSlice,
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "cart-east", "namespace": "shop",
                "labels": {"multicluster.kubernetes.io/service-name": "cart"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.1.0.7"], "conditions": {"ready": true}}],
        }),
    );
    let written = config::parse(
        "import.yaml",
        "{apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceImport, metadata: {name: cart, namespace: shop}, spec: {type: ClusterSetIP, ips: [10.42.42.42], ports: [{name: http, port: 80, appProtocol: http}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: cart-east, namespace: shop, labels: {multicluster.kubernetes.io/service-name: cart}}, addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.1.0.7]}]}",
    );
    assert!(!written.has_errors(), "{:#?}", written.diagnostics);
    let from_cluster = resources(vec![import, slice]);
    assert_eq!(from_cluster, resources(written.objects));
    let service = Key::new(model::resource::Kind::Service, "shop/cart.clusterset");
    assert!(from_cluster.iter().any(|(key, _)| *key == service));
}

#[test]
fn a_slice_without_addresses_says_nothing() {
    let slice = |json: Value| {
        let mut whole = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "cart-x", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "cart"}},
        });
        for (field, value) in json.as_object().expect("fields") {
            whole[field] = value.clone();
        }
        returned(whole)
    };
    for nothing in [
        json!({"addressType": "IPv4", "endpoints": null, "ports": null}),
        json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.example.com"]}]}),
    ] {
        let outcome = convert(ObjectKind::EndpointSlice, &slice(nothing));
        assert!(matches!(outcome, Converted::Ignored), "{outcome:?}");
    }
    let one = slice(json!({
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.101.1.5"], "conditions": {"ready": true, "serving": true},
            "nodeName": "n1", "zone": "a", "hints": {"forZones": [{"name": "a"}]},
            "deprecatedTopology": {"x": "y"},
            "targetRef": {"kind": "Pod", "name": "cart-1", "namespace": "shop", "uid": "u"},
        }],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}, {"name": "any", "port": null}],
    }));
    let Converted::Object(object) = convert(ObjectKind::EndpointSlice, &one) else {
        panic!("refused")
    };
    let config::Spec::EndpointSlice(spec) = &object.spec else {
        panic!("{object:?}")
    };
    assert_eq!((spec.endpoints.len(), spec.ports.len()), (1, 1));
}

#[test]
fn of_secrets_and_config_maps_only_certificates_are_taken() {
    let of = |kind: &str, name: &str, fields: Value| {
        let mut whole = json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"},
        });
        for (field, value) in fields.as_object().expect("fields") {
            whole[field] = value.clone();
        }
        returned(whole)
    };
    let tls = of(
        "Secret",
        "web",
        json!({"type": TLS_TYPE, "data": {"tls.crt": "YQ==", "tls.key": "Yg==", "password": "Yw=="}}),
    );
    let Converted::Object(object) = convert(ObjectKind::Secret, &tls) else {
        panic!("refused")
    };
    assert!(matches!(&object.spec, config::Spec::Secret(s) if s.data.len() == 2));
    for (kind, ignored) in [
        (
            ObjectKind::Secret,
            of(
                "Secret",
                "db",
                json!({"type": "Opaque", "data": {"password": "Yw=="}}),
            ),
        ),
        (
            ObjectKind::ConfigMap,
            of("ConfigMap", "settings", json!({"data": {"a": "b"}})),
        ),
        (
            ObjectKind::ConfigMap,
            of(
                "ConfigMap",
                "kube-root-ca.crt",
                json!({"data": {"ca.crt": "x"}}),
            ),
        ),
    ] {
        let outcome = convert(kind, &ignored);
        assert!(matches!(outcome, Converted::Ignored), "{outcome:?}");
    }
    let roots = of(
        "ConfigMap",
        "roots",
        json!({"data": {"ca.crt": "x", "README": "y"}}),
    );
    let Converted::Object(object) = convert(ObjectKind::ConfigMap, &roots) else {
        panic!("refused")
    };
    assert!(matches!(&object.spec, config::Spec::ConfigMap(s) if s.data.len() == 1));
}

#[test]
fn of_pods_nodes_and_secrets_nothing_waits_that_nobody_wants() {
    let items: Vec<Value> = serde_json::from_str(RETURNED).expect("a list");
    let slimmed = |kind: ObjectKind| {
        let mut of_kind = items.iter().filter(|o| o["kind"] == kind.as_str());
        let object = returned(of_kind.next().expect("one").clone());
        serde_json::to_value(slim(kind, object)).expect("JSON")
    };
    let pod = slimmed(ObjectKind::Pod);
    assert_eq!(
        pod["spec"],
        json!({"serviceAccountName": "cart", "nodeName": "n1"})
    );
    assert_eq!(pod["metadata"]["labels"], json!({"version": "v2"}));
    assert!(pod["metadata"]["uid"].is_null() && pod["status"].is_null());
    let node = slimmed(ObjectKind::Node);
    let labels = node["metadata"]["labels"].as_object().expect("labels");
    assert_eq!(labels.len(), 2);
    assert!(node["spec"].is_null() && node["status"].is_null());

    let opaque = returned(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "mixed", "namespace": "shop", "annotations": {"a": "b"}},
        "data": {"ca.crt": "YQ==", "password": "Yg=="},
    }));
    let opaque = slim(ObjectKind::Secret, opaque);
    assert!(!format!("{opaque:?}").contains("Yg=="));
    let Converted::Object(object) = convert(ObjectKind::Secret, &opaque) else {
        panic!("not taken")
    };
    assert!(matches!(&object.spec, config::Spec::Secret(s) if s.data.len() == 1));
}

#[test]
fn a_route_that_says_something_unknown_is_refused_with_its_field() {
    let route = returned(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "web"}], "hostnmaes": ["a.example"]},
    }));
    let Converted::Refused(findings) = convert(ObjectKind::HttpRoute, &route) else {
        panic!("taken")
    };
    assert_eq!(findings[0].field, "spec.hostnmaes");
}
