//! Whatever the order of changes, the translator holds what a translation from scratch gives, and
//! what it told along the way adds up to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::translate::{Change, Defaults, Outcome, Status, Translator};
use config::{Object, ObjectKey, ObjectKind, parse};
use model::resource::{Key, Resource};
use proptest::prelude::*;

/// What a follower of the outcomes knows.
#[derive(Debug, Default, PartialEq)]
struct Told {
    resources: BTreeMap<Key, Resource>,
    statuses: BTreeMap<ObjectKey, Status>,
}

impl Told {
    fn hear(&mut self, outcome: Outcome) {
        for (key, resource) in outcome.resources {
            match resource {
                Some(resource) => {
                    let old = self.resources.insert(key.clone(), resource.clone());
                    assert_ne!(old, Some(resource), "{key} was told again");
                }
                None => assert!(self.resources.remove(&key).is_some(), "{key} was not there"),
            }
        }
        for (key, status) in outcome.statuses {
            let old = self.statuses.insert(key.clone(), status.clone());
            assert_ne!(old, Some(status), "the status of {key} was told again");
        }
    }
}

fn object(text: &str) -> Object {
    let parsed = parse("test", text);
    assert!(!parsed.has_errors(), "{text}\n{:?}", parsed.diagnostics);
    parsed.objects.into_iter().next().expect("one object")
}

const NAMESPACES: [&str; 2] = ["bookshop", "warehouse"];
const NAMES: [&str; 3] = ["reviews", "ratings", "stock"];

fn pick<const N: usize>(from: [&'static str; N]) -> impl Strategy<Value = &'static str> {
    (0..N).prop_map(move |i| from[i])
}

fn service() -> impl Strategy<Value = String> {
    let selector = prop_oneof![
        Just("{}".to_owned()),
        pick(NAMES).prop_map(|n| format!("{{app: {n}}}")),
        (pick(NAMES), 1..3).prop_map(|(n, v)| format!("{{app: {n}, version: v{v}}}")),
    ];
    let port = prop_oneof![
        Just("port: 80, name: http"),
        Just("port: 80, targetPort: web, name: web"),
        Just("port: 81, appProtocol: tcp, name: x"),
    ];
    (pick(NAMESPACES), pick(NAMES), selector, port).prop_map(|(ns, name, selector, port)| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {ns}}}, \
             spec: {{selector: {selector}, ports: [{{{port}}}]}}}}"
        )
    })
}

fn workload() -> impl Strategy<Value = String> {
    let port = prop_oneof![
        Just("port: 80"),
        Just("port: 8080, name: web"),
        Just("port: 81")
    ];
    (
        pick(NAMESPACES),
        pick(NAMES),
        pick(NAMES),
        1..3,
        port,
        any::<bool>(),
    )
        .prop_map(|(ns, name, app, version, port, ready)| {
            format!(
                "{{apiVersion: tulle.dev/v1alpha1, kind: Workload, metadata: {{name: {name}-0, \
                 namespace: {ns}, labels: {{app: {app}, version: v{version}}}}}, \
                 spec: {{address: 10.0.0.1, ports: [{{{port}}}], ready: {ready}}}}}"
            )
        })
}

/// Group and kind of what routes can be for and lead to in the mesh.
const SERVICES: [&str; 2] = [
    "group: '', kind: Service",
    "group: multicluster.x-k8s.io, kind: ServiceImport",
];

/// A route of a service, of the clients of one namespace perhaps, and perhaps of a Gateway too.
fn route() -> impl Strategy<Value = String> {
    let kind = pick(["HTTPRoute", "GRPCRoute", "TCPRoute"]);
    let at = prop_oneof![Just(""), Just(", port: 80"), Just(", sectionName: web")];
    let place = (pick(NAMESPACES), pick(NAMES));
    let parent = (pick(SERVICES), pick(NAMESPACES), pick(NAMES), at);
    let parent = parent
        .prop_map(|(kind, ns, name, at)| format!("{{{kind}, name: {name}, namespace: {ns}{at}}}"));
    let beside = prop_oneof![2 => Just(""), 1 => Just(", {name: web}")];
    let backend = (
        pick(SERVICES),
        pick(NAMESPACES),
        pick(["reviews", "ratings", "revews"]),
        80..82u16,
    );
    let backend = backend.prop_map(|(kind, ns, name, port)| {
        format!("{{{kind}, name: {name}, namespace: {ns}, port: {port}}}")
    });
    (kind, place, parent, beside, backend).prop_map(
        |(kind, (ns, name), parent, beside, backend)| {
            format!(
                "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, \
                 namespace: {ns}}}, spec: {{parentRefs: [{parent}{beside}], \
                 rules: [{{backendRefs: [{backend}]}}]}}}}"
            )
        },
    )
}

/// Services of other clusters, and endpoints of them and of others.
fn imported() -> impl Strategy<Value = String> {
    let label = pick([
        "kubernetes.io/service-name",
        "multicluster.kubernetes.io/service-name",
    ]);
    prop_oneof![
        (pick(NAMESPACES), pick(NAMES), pick(["http", "web"])).prop_map(|(ns, name, port)| format!(
            "{{apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceImport, metadata: {{name: {name}, namespace: {ns}}}, \
             spec: {{type: ClusterSetIP, ips: [10.9.0.1], ports: [{{name: {port}, port: 80}}]}}}}"
        )),
        (pick(NAMESPACES), pick(NAMES), label, pick(NAMES)).prop_map(|(ns, name, label, service)| format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {name}, namespace: {ns}, labels: {{{label}: {service}}}}}, \
             addressType: IPv4, ports: [{{name: http, port: 8080}}], endpoints: [{{addresses: [10.8.0.1]}}]}}"
        )),
    ]
}

fn grant() -> impl Strategy<Value = String> {
    let to = prop_oneof![Just(""), Just(", name: reviews")];
    let to = (pick(SERVICES), to).prop_map(|(kind, name)| format!("{kind}{name}"));
    (pick(NAMESPACES), pick(NAMESPACES), to).prop_map(|(ns, from, to)| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {{name: g, \
             namespace: {ns}}}, spec: {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, \
             namespace: {from}}}], to: [{{{to}}}]}}}}"
        )
    })
}

fn policy() -> impl Strategy<Value = String> {
    let spec = prop_oneof![
        (pick(NAMES), 1..4).prop_map(|(n, s)| (
            "TrafficPolicy",
            format!("targetRefs: [{{kind: Service, name: {n}}}], timeouts: {{request: {s}s}}")
        )),
        (pick(NAMES), 1..4).prop_map(|(n, s)| (
            "TrafficPolicy",
            format!("targetRefs: [{{kind: Service, name: {n}, sectionName: http}}], timeouts: {{idle: {s}s}}")
        )),
        (pick(NAMES), pick(["Strict", "Permissive", "Disable"])).prop_map(|(n, mode)| (
            "AuthenticationPolicy",
            format!("targetRefs: [{{kind: Service, name: {n}}}], mtls: {{mode: {mode}}}")
        )),
        pick(["Strict", "Permissive"]).prop_map(|mode| (
            "AuthenticationPolicy",
            format!("targetRefs: [{{kind: Namespace, name: bookshop}}], mtls: {{ports: {{'80': {mode}}}}}")
        )),
    ];
    (pick(NAMES), spec, 1..4).prop_map(|(name, (kind, spec), day)| {
        format!(
            "{{apiVersion: tulle.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}, \
             namespace: bookshop, creationTimestamp: '2026-01-0{day}T00:00:00Z'}}, spec: {{{spec}}}}}"
        )
    })
}

fn gateway() -> impl Strategy<Value = String> {
    let allowed = prop_oneof![
        Just(""),
        Just("allowedListeners: {namespaces: {from: All}}, "),
        Just("allowedListeners: {namespaces: {from: Same}}, defaultScope: All, "),
        Just(
            "allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}, "
        ),
        Just(
            "addresses: [{type: Hostname, value: a.com}], allowedListeners: {namespaces: {from: All}}, "
        ),
    ];
    let class = pick(["tulle", "ours", "none"]);
    (pick(NAMESPACES), class, allowed, listeners(), 1..4).prop_map(
        |(ns, class, allowed, listeners, day)| {
            format!(
                "{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: web, namespace: {ns}, \
                 creationTimestamp: '2026-01-0{day}T00:00:00Z'}}, \
                 spec: {{gatewayClassName: {class}, {allowed}listeners: [{listeners}]}}}}"
            )
        },
    )
}

/// Listeners of which some conflict with others.
fn listeners() -> impl Strategy<Value = String> {
    let listener = prop_oneof![
        Just("port: 80, protocol: HTTP"),
        Just("port: 80, protocol: HTTP, hostname: a.com"),
        Just("port: 80, protocol: TCP"),
        Just("port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}"),
        Just("port: 80, protocol: UDP"),
        Just("port: 82, protocol: SCTP"),
        Just("port: 443, protocol: TLS, hostname: '*.a.com', tls: {mode: Passthrough}"),
        Just("port: 443, protocol: TLS, hostname: x.a.com, tls: {mode: Passthrough}"),
        Just("port: 83, protocol: HTTPS, tls: {certificateRefs: [{name: stock}]}"),
    ];
    prop::collection::btree_set(listener, 1..4).prop_map(|list| {
        let list = list.into_iter().enumerate();
        let list: Vec<String> = list.map(|(i, l)| format!("{{name: l{i}, {l}}}")).collect();
        list.join(", ")
    })
}

fn listener_set() -> impl Strategy<Value = String> {
    (pick(NAMESPACES), pick(NAMES), pick(NAMESPACES), listeners(), 1..4).prop_map(
        |(ns, name, parent, listeners, day)| {
            format!(
                "{{apiVersion: gateway.networking.k8s.io/v1, kind: ListenerSet, metadata: {{name: {name}, namespace: {ns}, \
                 creationTimestamp: '2026-01-0{day}T00:00:00Z'}}, \
                 spec: {{parentRef: {{name: web, namespace: {parent}}}, listeners: [{listeners}]}}}}"
            )
        },
    )
}

fn attached_route() -> impl Strategy<Value = String> {
    let parent = prop_oneof![
        pick(NAMESPACES).prop_map(|ns| format!("{{name: web, namespace: {ns}}}")),
        (pick(NAMESPACES), 0..3)
            .prop_map(|(ns, i)| format!("{{name: web, namespace: {ns}, sectionName: l{i}}}")),
        (pick(NAMESPACES), pick(NAMES)).prop_map(|(ns, name)| format!(
            "{{group: gateway.networking.k8s.io, kind: ListenerSet, name: {name}, namespace: {ns}}}"
        )),
    ];
    let kind = prop_oneof![Just("HTTPRoute"), Just("TCPRoute")];
    let parent = (parent, pick(["All", "None"]))
        .prop_map(|(parent, scope)| format!("parentRefs: [{parent}], useDefaultGateways: {scope}"));
    (kind, pick(NAMESPACES), pick(NAMES), parent, pick(NAMES)).prop_map(
        |(kind, ns, name, parent, backend)| {
            format!(
                "{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: g-{name}, namespace: {ns}}}, \
                 spec: {{{parent}, rules: [{{backendRefs: [{{name: {backend}, port: 81}}]}}]}}}}"
            )
        },
    )
}

/// What the others depend on: labels of namespaces, classes, trust in backends.
fn beside() -> impl Strategy<Value = String> {
    prop_oneof![
        (pick(NAMESPACES), pick(["a", "b"])).prop_map(|(ns, team)| format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {ns}, labels: {{team: {team}}}}}}}"
        )),
        (
            pick(["tulle.dev/gateway", "example.com/other"]),
            pick(["", ", annotations: {tulle.dev/merge-gateways: 'true'}"]),
        )
            .prop_map(|(controller, merged)| format!(
                "{{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {{name: ours{merged}}}, spec: {{controllerName: {controller}}}}}"
            )),
        (pick(NAMESPACES), pick(NAMES), pick(NAMES)).prop_map(|(ns, name, target)| format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {{name: {name}, namespace: {ns}}}, \
             spec: {{targetRefs: [{{group: '', kind: Service, name: {target}}}], validation: {{hostname: a.com, wellKnownCACertificates: System}}}}}}"
        )),
    ]
}

/// Endpoints as Kubernetes writes them, and what they name.
fn pods() -> impl Strategy<Value = String> {
    let node = || pick(["n1", "n2"]);
    prop_oneof![
        (pick(NAMES), pick(NAMES), node()).prop_map(|(service, pod, node)| format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {service}, namespace: bookshop, \
             labels: {{kubernetes.io/service-name: {service}}}}}, addressType: IPv4, ports: [{{name: http, port: 8080}}], \
             endpoints: [{{addresses: [10.0.0.7], nodeName: {node}, targetRef: {{kind: Pod, name: {pod}}}}}, \
             {{addresses: [10.0.0.8], targetRef: {{kind: Pod, name: {pod}}}}}]}}"
        )),
        (pick(NAMES), pick(NAMES), node(), 1..3).prop_map(|(pod, account, node, version)| format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: bookshop, labels: {{version: v{version}}}}}, \
             spec: {{serviceAccountName: {account}, nodeName: {node}}}}}"
        )),
        (node(), pick(["a", "b"])).prop_map(|(node, zone)| format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {node}, labels: {{topology.kubernetes.io/zone: {zone}}}}}}}"
        )),
    ]
}

fn mesh() -> impl Strategy<Value = String> {
    let spec = prop_oneof![
        Just("mtls: {mode: Permissive}"),
        Just("outboundPolicy: RegistryOnly"),
        Just("trustDomain: elsewhere, mtls: {mode: Disable}"),
    ];
    spec.prop_map(|spec| {
        format!(
            "{{apiVersion: tulle.dev/v1alpha1, kind: MeshConfig, metadata: {{name: default}}, spec: {{{spec}}}}}"
        )
    })
}

#[derive(Debug, Clone)]
enum Step {
    Put(String),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let text = prop_oneof![
        4 => service(),
        4 => workload(),
        4 => route(),
        2 => imported(),
        1 => grant(),
        3 => policy(),
        1 => mesh(),
        3 => gateway(),
        3 => listener_set(),
        4 => attached_route(),
        1 => beside(),
        4 => pods(),
    ];
    prop_oneof![
        3 => text.prop_map(Step::Put),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Delete(i.index(1000))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_is_the_same_as_from_scratch(batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12)) {
        let mut translator = Translator::new(Defaults::default());
        let mut told = Told::default();
        let mut live: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
        for batch in batches {
            let mut changes = Vec::new();
            for step in batch {
                match step {
                    Step::Put(text) => {
                        let object = Arc::new(object(&text));
                        live.insert(object.key.clone(), Arc::clone(&object));
                        changes.push(Change::Put(object));
                    }
                    Step::Delete(i) if !live.is_empty() => {
                        let key = live.keys().nth(i % live.len()).expect("within").clone();
                        live.remove(&key);
                        changes.push(Change::Delete(key));
                    }
                    Step::Delete(_) => {}
                }
            }
            told.hear(translator.apply(changes));
            told.statuses.retain(|key, _| live.contains_key(key));
        }

        let mut fresh = Translator::new(Defaults::default());
        let mut scratch = Told::default();
        scratch.hear(fresh.apply(live.values().cloned().map(Change::Put).collect()));
        prop_assert_eq!(&told, &scratch);
        for key in live.keys() {
            prop_assert_eq!(translator.status(key), fresh.status(key));
            prop_assert_eq!(translator.emits(key), fresh.emits(key));
        }
        let wanted: Vec<_> = translator.wanted_secrets().collect();
        prop_assert_eq!(wanted, fresh.wanted_secrets().collect::<Vec<_>>());
        let held: BTreeMap<Key, Resource> = translator.resources().map(|(k, r)| (k.clone(), r.clone())).collect();
        prop_assert_eq!(held, scratch.resources);
    }
}

#[test]
fn a_change_costs_what_it_affects_and_not_the_mesh() {
    let mut translator = Translator::new(Defaults::default());
    let mut changes = Vec::new();
    for i in 0..2_000 {
        for text in [
            format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: s{i}}}, spec: {{selector: {{app: s{i}}}, ports: [{{port: 80}}]}}}}"
            ),
            format!(
                "{{apiVersion: tulle.dev/v1alpha1, kind: Workload, metadata: {{name: w{i}, labels: {{app: s{i}}}}}, spec: {{address: 10.0.0.1, ports: [{{port: 80}}]}}}}"
            ),
        ] {
            changes.push(Change::Put(Arc::new(object(&text))));
        }
    }
    translator.apply(changes);

    let unready = object(
        "{apiVersion: tulle.dev/v1alpha1, kind: Workload, metadata: {name: w7, labels: {app: s7}}, spec: {address: 10.0.0.1, ports: [{port: 80}], ready: false}}",
    );
    let outcome = translator.apply(vec![Change::Put(Arc::new(unready.clone()))]);
    let keys: Vec<String> = outcome
        .resources
        .iter()
        .map(|(k, _)| k.to_string())
        .collect();
    assert_eq!(keys, ["Endpoint default/s7/default.w7"]);
    assert!(outcome.statuses.is_empty());

    let same = translator.apply(vec![Change::Put(Arc::new(unready))]);
    assert!(same.resources.is_empty() && same.diagnostics.is_empty());

    let gone = translator.apply(vec![Change::Delete(ObjectKey::new(
        ObjectKind::Service,
        "default",
        "s7",
    ))]);
    let keys: Vec<String> = gone
        .resources
        .iter()
        .map(|(k, r)| format!("{k} {}", r.is_some()))
        .collect();
    assert_eq!(
        keys,
        [
            "Endpoint default/s7/default.w7 false",
            "Service default/s7 false"
        ]
    );
}

#[test]
fn a_policy_is_programmed_where_its_workloads_are() {
    let mut translator = Translator::new(Defaults::default());
    let texts = [
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: s}, ports: [{port: 80}]}}",
        "{apiVersion: tulle.dev/v1alpha1, kind: Workload, metadata: {name: w, labels: {app: s}}, spec: {address: 10.0.0.1}}",
        "{apiVersion: tulle.dev/v1alpha1, kind: Workload, metadata: {name: other}, spec: {address: 10.0.0.1}}",
        "{apiVersion: tulle.dev/v1alpha1, kind: AuthenticationPolicy, metadata: {name: p}, spec: {targetRefs: [{kind: Service, name: s}], mtls: {mode: Permissive}}}",
    ];
    translator.apply(
        texts
            .iter()
            .map(|t| Change::Put(Arc::new(object(t))))
            .collect(),
    );
    let policy = ObjectKey::new(ObjectKind::AuthenticationPolicy, "default", "p");
    let keys: Vec<String> = translator
        .emits(&policy)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(keys, ["Workload default/w"]);
}

#[test]
fn routes_are_counted_without_looking_at_their_gateway_again() {
    let route = |i: usize, host: &str| {
        object(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r{i}}}, \
             spec: {{parentRefs: [{{name: web}}], hostnames: [{host}]}}}}"
        ))
    };
    let mut translator = Translator::new(Defaults::default());
    let mut changes = vec![Change::Put(Arc::new(object(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: web}, \
         spec: {gatewayClassName: tulle, listeners: [{name: a, port: 80, protocol: HTTP, hostname: '*.a.com'}]}}",
    )))];
    changes.extend((0..500).map(|i| Change::Put(Arc::new(route(i, "x.a.com")))));
    translator.apply(changes);
    let gateway = ObjectKey::new(ObjectKind::Gateway, "default", "web");
    let attached = |translator: &Translator| {
        let status = translator.status(&gateway).expect("there is one");
        status.listeners[0].attached_routes
    };
    assert_eq!(attached(&translator), 500);

    let moved = route(7, "x.b.com");
    let key = moved.key.clone();
    let outcome = translator.apply(vec![Change::Put(Arc::new(moved))]);
    assert_eq!(outcome.translated, [key.clone()].into());
    let told: Vec<&ObjectKey> = outcome.statuses.iter().map(|(key, _)| key).collect();
    assert_eq!(told, [&gateway, &key]);
    assert_eq!(attached(&translator), 499);
    translator.apply(vec![Change::Delete(key)]);
    assert_eq!(attached(&translator), 499);
}
