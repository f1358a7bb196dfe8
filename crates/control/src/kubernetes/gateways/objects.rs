//! What a Gateway leads to on Kubernetes, or all Gateways of a class that share a proxy: a pure
//! function, written down as the API server reads it.
//!
//! GEP-1762: everything is named `<gateway>-<class>`, carries Gateway API's labels and those of
//! `spec.infrastructure`, and belongs to the Gateway, so that it goes with it; what is for a class has
//! its name, stands in the namespace `tulle-system` and belongs to the class. The pods' template
//! depends on no listener: a listener that comes or goes changes the Service, and no pod is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{MANAGED_BY, MANAGER, ServiceType};
use crate::authority::account::AUDIENCE;
use crate::distribute::Door;
use crate::gateways::{Unit, generated_name, shortened};

/// Gateway API's labels.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
const COMPONENT: &str = "app.kubernetes.io/component";
/// Metrics and health of a proxy, unless a listener has that port.
const METRICS: u16 = 15020;
/// The user as which pods run: nobody's on any node.
const USER: u32 = 65_532;
/// How long a pod may drain, in seconds, and the container's end after that.
const DRAIN: u32 = 25;
/// Where things are in a pod.
const STATE: &str = "/var/lib/tulle";
const TOKEN: &str = "/var/run/secrets/tulle/token";
const ROOTS: &str = "/var/run/tulle/roots";
/// The ConfigMap's key.
const ROOTS_FILE: &str = "root.pem";

/// What a proxy is for, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gateway {
    pub(super) unit: Unit,
    /// Of the object that owns all.
    pub(super) uid: String,
    pub(super) class: String,
    /// `spec.infrastructure`; nothing for a class.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    /// What its listeners open.
    pub(super) doors: Vec<Door>,
    /// The address that it asks for, if it is one that it can have.
    pub(super) address: Option<IpAddr>,
}

/// What is the same for all Gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// Image of the pods.
    pub(super) image: String,
    /// `host:port` at which pods reach the control plane.
    pub(super) control: String,
    pub(super) service_type: ServiceType,
    /// The mesh's roots as PEM.
    pub(super) roots: String,
}

/// All that a Gateway leads to, in the order in which it is made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Objects {
    pub(super) account: Value,
    pub(super) roots: Value,
    pub(super) deployment: Value,
    /// None without a listener: a Service has at least one port.
    pub(super) service: Option<Value>,
}

impl Gateway {
    /// The namespace of all that is made for it.
    pub(super) fn namespace(&self) -> &str {
        self.unit.account().0
    }

    /// The name of all that is made for it.
    pub(super) fn generated(&self) -> String {
        match &self.unit {
            Unit::Gateway(key) => generated_name(&key.name, &self.class),
            Unit::Class(class) => class.clone(),
        }
    }

    /// What selects its pods; never changes.
    fn selector(&self) -> BTreeMap<&'static str, String> {
        let (of, value) = match &self.unit {
            Unit::Gateway(key) => (GATEWAY_NAME, shortened(&key.name)),
            Unit::Class(_) => (COMPONENT, "merged-gateways".to_owned()),
        };
        BTreeMap::from([(of, value), (CLASS_NAME, shortened(&self.class))])
    }

    /// The labels of all objects: the user's, and over them those by which things are found.
    fn labels(&self) -> Map<String, Value> {
        let own = self.selector().into_iter().chain([
            (MANAGED_BY, MANAGER.to_owned()),
            ("app.kubernetes.io/name", "tulle-gateway".to_owned()),
            (
                "app.kubernetes.io/instance",
                shortened(&self.unit.owner().name),
            ),
        ]);
        let mut labels: Map<String, Value> = self
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into()))
            .collect();
        labels.extend(own.map(|(key, value)| (key.to_owned(), value.into())));
        labels
    }

    fn metadata(&self) -> Value {
        let owner = self.unit.owner();
        json!({
            "name": self.generated(),
            "namespace": self.namespace(),
            "labels": self.labels(),
            "annotations": self.annotations,
            "ownerReferences": [{
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": owner.kind.as_str(),
                "name": *owner.name, "uid": self.uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        })
    }

    /// A port for metrics and health that no listener has.
    fn metrics_port(&self) -> u16 {
        let taken: BTreeSet<u16> = self.doors.iter().map(|door| door.port).collect();
        (METRICS..=u16::MAX)
            .find(|port| !taken.contains(port))
            .unwrap_or(METRICS)
    }

    /// What is to be there for it.
    pub(super) fn objects(&self, template: &Template) -> Objects {
        Objects {
            account: json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.metadata(),
                // Its pods talk to the control plane alone, with a token for nobody else.
                "automountServiceAccountToken": false,
            }),
            roots: json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": self.metadata(),
                "data": {ROOTS_FILE: template.roots},
            }),
            deployment: self.deployment(template),
            service: (!self.doors.is_empty()).then(|| self.service(template)),
        }
    }

    fn deployment(&self, template: &Template) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": self.metadata(),
            // Without `replicas`, which are one, or whatever somebody else makes of them.
            "spec": {
                "selector": {"matchLabels": self.selector()},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {
                    "metadata": {"labels": self.labels(), "annotations": self.annotations},
                    "spec": self.pod(template),
                },
            },
        })
    }

    fn pod(&self, template: &Template) -> Value {
        let metrics = self.metrics_port();
        let [what, which] = self.unit.arguments();
        let probe = |path: &str, period: u32| json!({"httpGet": {"path": path, "port": metrics, "scheme": "HTTP"}, "periodSeconds": period, "timeoutSeconds": 2});
        json!({
            "serviceAccountName": self.generated(),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": DRAIN + 5,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
                // Listeners may have any port, and need no capability for it.
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "containers": [{
                "name": "proxy",
                "image": template.image,
                "imagePullPolicy": "IfNotPresent",
                "args": [
                    "gateway", what, which,
                    "--xds", template.control,
                    "--state-dir", format!("{STATE}/gateway"),
                    "--token-file", TOKEN, "--trust-file", format!("{ROOTS}/{ROOTS_FILE}"),
                    "--admin", "off", "--metrics", format!("0.0.0.0:{metrics}"),
                    "--drain", format!("{DRAIN}s"), "--log-json", "--verbose",
                ],
                "ports": [{"name": "metrics", "containerPort": metrics, "protocol": "TCP"}],
                "readinessProbe": probe("/healthz/ready", 2),
                "livenessProbe": probe("/healthz/live", 10),
                "resources": {"requests": {"cpu": "20m", "memory": "40Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "state", "mountPath": STATE},
                    {"name": "token", "mountPath": "/var/run/secrets/tulle", "readOnly": true},
                    {"name": "roots", "mountPath": ROOTS, "readOnly": true},
                ],
            }],
            "volumes": [
                {"name": "state", "emptyDir": {"sizeLimit": "256Mi"}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                    "audience": AUDIENCE, "expirationSeconds": 3600, "path": "token",
                }}]}},
                {"name": "roots", "configMap": {"name": self.generated()}},
            ],
        })
    }

    fn service(&self, template: &Template) -> Value {
        let mut ports = BTreeSet::new();
        for door in &self.doors {
            if !door.udp {
                ports.insert((door.port, "TCP"));
            }
            if door.udp || door.also_udp {
                ports.insert((door.port, "UDP"));
            }
        }
        let ports: Vec<Value> = ports
            .iter()
            .map(|(port, protocol)| {
                json!({
                    "name": format!("{}-{port}", protocol.to_lowercase()), "protocol": protocol,
                    "port": port, "targetPort": port,
                })
            })
            .collect();
        let mut spec = json!({
            "type": template.service_type.as_str(),
            "selector": self.selector(),
            "ports": ports,
        });
        if let Some(address) = self.address {
            spec[template.service_type.address_field()] = address.to_string().into();
        }
        json!({"apiVersion": "v1", "kind": "Service", "metadata": self.metadata(), "spec": spec})
    }
}

#[cfg(test)]
mod tests {
    use config::{ObjectKey, ObjectKind};

    use super::*;

    fn door(port: u16, udp: bool) -> Door {
        Door {
            port,
            udp,
            also_udp: false,
            addresses: Vec::new(),
        }
    }

    fn gateway(doors: Vec<Door>) -> Gateway {
        Gateway {
            unit: Unit::Gateway(ObjectKey::new(ObjectKind::Gateway, "shop", "web")),
            uid: "0b1c".to_owned(),
            class: "tulle".to_owned(),
            labels: BTreeMap::from([
                ("team".to_owned(), "shop".to_owned()),
                (GATEWAY_NAME.to_owned(), "another".to_owned()),
            ]),
            annotations: BTreeMap::from([("note".to_owned(), "kept".to_owned())]),
            doors,
            address: None,
        }
    }

    fn template() -> Template {
        Template {
            image: "registry.test/tulle:v1".to_owned(),
            control: "tulle-control.tulle-system.svc:15012".to_owned(),
            service_type: ServiceType::LoadBalancer,
            roots: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        }
    }

    #[test]
    fn everything_has_one_name_its_labels_and_its_owner() {
        let objects = gateway(vec![door(80, false)]).objects(&template());
        let service = objects.service.expect("a service");
        let all = [
            &objects.account,
            &objects.roots,
            &objects.deployment,
            &service,
        ];
        for object in all {
            let metadata = &object["metadata"];
            assert_eq!(metadata["name"], "web-tulle", "{object}");
            assert_eq!(metadata["namespace"], "shop");
            assert_eq!(metadata["annotations"]["note"], "kept");
            assert_eq!(metadata["labels"]["team"], "shop");
            // A user's label does not take a Gateway's pods away from it.
            assert_eq!(metadata["labels"][GATEWAY_NAME], "web");
            assert_eq!(metadata["labels"][CLASS_NAME], "tulle");
            assert_eq!(metadata["ownerReferences"][0]["uid"], "0b1c");
        }
        let pod = &objects.deployment["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"]["team"], "shop");
        assert_eq!(pod["metadata"]["annotations"]["note"], "kept");
        let selector = &objects.deployment["spec"]["selector"]["matchLabels"];
        for (key, value) in selector.as_object().expect("labels") {
            assert_eq!(&pod["metadata"]["labels"][key], value);
            assert_eq!(&service["spec"]["selector"][key], value);
        }
    }

    #[test]
    fn what_is_for_a_class_is_the_classs() {
        let shared = Gateway {
            unit: Unit::Class("shared".to_owned()),
            class: "shared".to_owned(),
            ..gateway(vec![door(80, false)])
        };
        let objects = shared.objects(&template());
        let metadata = &objects.deployment["metadata"];
        assert_eq!(
            (&metadata["namespace"], &metadata["name"]),
            (&"tulle-system".into(), &"shared".into())
        );
        assert_eq!(metadata["ownerReferences"][0]["kind"], "GatewayClass");
        assert_eq!(metadata["ownerReferences"][0]["name"], "shared");
        let pod = &objects.deployment["spec"]["template"];
        assert_eq!(pod["spec"]["serviceAccountName"], "shared");
        let arguments = &pod["spec"]["containers"][0]["args"];
        assert_eq!(
            (&arguments[1], &arguments[2]),
            (&"--class".into(), &"shared".into())
        );
        // The pods of a Gateway of this class are not its own.
        let selector = &objects.service.expect("a service")["spec"]["selector"];
        let alone = gateway(Vec::new()).objects(&template()).deployment;
        let labels = alone["spec"]["template"]["metadata"]["labels"].as_object();
        let labels = labels.expect("labels");
        let selector = selector.as_object().expect("labels");
        assert!(
            selector
                .iter()
                .any(|(key, value)| labels.get(key) != Some(value))
        );
    }

    #[test]
    fn ports_are_the_listeners_by_transport_and_pods_know_none_of_them() {
        let doors = vec![
            door(80, false),
            Door {
                also_udp: true,
                ..door(443, false)
            },
            door(53, false),
            door(53, true),
        ];
        let objects = gateway(doors).objects(&template());
        let service = objects.service.expect("a service");
        let ports: Vec<String> = service["spec"]["ports"]
            .as_array()
            .expect("ports")
            .iter()
            .map(|p| p["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(ports, ["tcp-53", "udp-53", "tcp-80", "tcp-443", "udp-443"]);
        let other = gateway(vec![door(8080, false)]).objects(&template());
        assert_eq!(objects.deployment, other.deployment);
        assert_eq!(gateway(Vec::new()).objects(&template()).service, None);
    }

    #[test]
    fn pods_may_do_nothing_that_they_do_not_need() {
        let objects = gateway(vec![door(METRICS, false)]).objects(&template());
        let pod = &objects.deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
        let container = &pod["containers"][0];
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"]["drop"][0], "ALL");
        assert!(context.get("privileged").is_none());
        let token = &pod["volumes"][1]["projected"]["sources"][0]["serviceAccountToken"];
        assert_eq!(token["audience"], "tulle");
        // The port for health gives way to a listener.
        let probe = &container["readinessProbe"]["httpGet"];
        assert_eq!(probe["port"], METRICS + 1);
    }

    #[test]
    fn an_address_is_asked_for_where_the_kind_of_service_has_it() {
        let mut gateway = gateway(vec![door(80, false)]);
        gateway.address = Some("10.0.0.9".parse().expect("an address"));
        let mut template = template();
        let field = |template: &Template, field: &str| {
            let service = gateway.objects(template).service.expect("a service");
            service["spec"].get(field).cloned()
        };
        assert_eq!(field(&template, "loadBalancerIP"), Some("10.0.0.9".into()));
        assert_eq!(field(&template, "clusterIP"), None);
        template.service_type = ServiceType::ClusterIp;
        assert_eq!(field(&template, "clusterIP"), Some("10.0.0.9".into()));
        assert_eq!(field(&template, "type"), Some("ClusterIP".into()));
    }
}
