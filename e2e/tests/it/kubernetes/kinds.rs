//! Kinds beside Gateway API's: Tulle's own with their status, Secrets of any type that are named, and
//! the Pods and Nodes behind endpoints.

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use testkit::process::Process;

use super::world::{SOON, World, condition, holds};

/// Objects of a kind, as the control plane has them.
fn known(world: &World, kind: &str) -> Vec<Value> {
    let ns = world.namespace.clone();
    let mut command = world.tulle(&["get", kind, "-n", &ns, "-o", "json"]);
    let text = Process::run("get", &mut command, world.dir.path(), SOON).success();
    let said: Value = serde_json::from_str(&text).unwrap();
    let items = said.get("items").unwrap_or(&said);
    items.as_array().expect("a list").clone()
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn tulles_own_kinds_say_what_became_of_them() {
    let mut world = World::new("own");
    let ns = world.namespace.clone();
    let policy = |field: &str| {
        format!(
            "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: slow, namespace: {ns}}}\nspec: {{targetRefs: [{{kind: Service, name: backend}}], {field}: {{request: 10s}}}}\n"
        )
    };
    world.apply(&policy("timeouts"));
    world.start_control();
    world.says("accepted", "trafficpolicy", "slow", |o| {
        let ancestor = &o["status"]["ancestors"][0];
        ancestor["ancestorRef"]["name"] == "backend"
            && ancestor["controllerName"] == "tulle.dev/gateway"
            && holds(&ancestor["conditions"], "Accepted", 1)
    });

    // The API server keeps what it does not know, and the status says what is wrong with it.
    world.run_kubectl(&["delete", "trafficpolicy", "slow", "-n", &ns]);
    world.apply(&policy("timeoutz"));
    let refused = world.says("refused", "trafficpolicy", "slow", |o| {
        condition(&o["status"]["conditions"], "Accepted") == Some(("False".to_owned(), 1))
    });
    let message = refused["status"]["conditions"][0]["message"].to_string();
    assert!(message.contains("spec.timeoutz"), "{message}");
    assert!(message.contains("timeouts"), "{message}");
    world.run_kubectl(&["delete", "trafficpolicy", "slow", "-n", &ns]);
    world.apply(&policy("timeouts"));
    world.says("mended", "trafficpolicy", "slow", |o| {
        holds(&o["status"]["ancestors"][0]["conditions"], "Accepted", 1)
            && o["status"]["conditions"].is_null()
    });

    let workload = format!(
        "apiVersion: tulle.dev/v1alpha1\nkind: Workload\nmetadata: {{name: host, namespace: {ns}}}\nspec: {{address: 192.0.2.9, ports: [{{port: 80}}]}}\n"
    );
    world.apply(&workload);
    world.says("accepted", "workloads.tulle.dev", "host", |o| {
        holds(&o["status"]["conditions"], "Accepted", 1)
    });
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn a_secret_of_any_type_serves_as_long_as_it_is_named_and_no_other_is_read() {
    let mut world = World::new("secrets");
    let ns = world.namespace.clone();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let crt = world.dir.write("tls.crt", certificate.pem());
    let key = world.dir.write("tls.key", key.serialize_pem());
    let crt = format!("--from-file=tls.crt={}", crt.display());
    let key = format!("--from-file=tls.key={}", key.display());
    for (name, more) in [("own", "--type=Opaque"), ("others", "--type=example.com/x")] {
        let mut arguments = vec!["create", "secret", "generic", name, "-n", &ns, more];
        arguments.extend([crt.as_str(), key.as_str(), "--from-literal=password=x"]);
        world.run_kubectl(&arguments);
    }
    world.apply(&format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: safe, namespace: {ns}}}\nspec:\n  gatewayClassName: {ns}\n  listeners: [{{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: own}}]}}}}]\n"
    ));
    world.start_control();
    let resolved = |status: &'static str| {
        move |o: &Value| {
            let conditions = &o["status"]["listeners"][0]["conditions"];
            condition(conditions, "ResolvedRefs").is_some_and(|(said, _)| said == status)
        }
    };
    world.says("its certificate", "gateway", "safe", resolved("True"));
    let secrets = known(&world, "secrets");
    let names: Vec<&str> = secrets
        .iter()
        .filter_map(|o| o["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["own"]);

    world.delete("secret", "own");
    world.says("it is gone", "gateway", "safe", resolved("False"));
    let mut arguments = vec!["create", "secret", "tls", "own", "-n", &ns];
    let (cert, key) = (world.dir.join("tls.crt"), world.dir.join("tls.key"));
    let (cert, key) = (
        format!("--cert={}", cert.display()),
        format!("--key={}", key.display()),
    );
    arguments.extend([cert.as_str(), key.as_str()]);
    world.run_kubectl(&arguments);
    world.says("another of its name", "gateway", "safe", resolved("True"));
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn pods_and_nodes_are_known_by_what_endpoints_need_of_them() {
    let mut world = World::new("pods");
    let ns = world.namespace.clone();
    world.run_kubectl(&["create", "serviceaccount", "cart", "-n", &ns]);
    // Nobody has its image: it is a Pod all the same.
    world.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: cart-1, namespace: {ns}, labels: {{app: cart, version: v2}}}}\nspec: {{serviceAccountName: cart, containers: [{{name: c, image: \"test.local/none:v1\", imagePullPolicy: Never}}]}}\n"
    ));
    world.start_control();
    let pod = testkit::wait_for("the Pod, on its node", SOON, || {
        let pod = known(&world, "pods").into_iter().next()?;
        pod["spec"]["nodeName"].is_string().then_some(pod)
    });
    assert_eq!(pod["spec"]["serviceAccountName"], "cart");
    assert_eq!(pod["metadata"]["labels"].to_string(), r#"{"version":"v2"}"#);
    assert!(pod["spec"]["containers"].is_null(), "{pod:#}");
    let nodes = known(&world, "nodes");
    let names: Vec<&Value> = nodes.iter().map(|o| &o["metadata"]["name"]).collect();
    assert!(names.contains(&&pod["spec"]["nodeName"]), "{names:?}");

    world.delete("pod", "cart-1");
    testkit::wait_for("the end of the Pod", SOON, || {
        known(&world, "pods").is_empty().then_some(())
    });
}
