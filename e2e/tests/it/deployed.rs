//! Tulle on a real Kubernetes, as `scripts/kubernetes.sh` deploys it: `make kubernetes-e2e`.
//!
//! The test speaks to the API server by kubectl and to Gateways at the addresses in their status,
//! which this host must reach.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::raw::Raw;

/// Images are there; pods start within seconds.
const SOON: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "tulle-e2e";

/// What kubectl says; an error if it fails.
fn kubectl(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("kubectl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("kubectl reads");
    drop(stdin);
    let output = child.wait_with_output().expect("kubectl ends");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn apply(yaml: &str) {
    kubectl(&["-n", NAMESPACE, "apply", "-f", "-"], yaml).expect("applied");
}

fn find(kind: &str, name: &str) -> Option<Value> {
    let text = kubectl(&["-n", NAMESPACE, "get", kind, name, "-o", "json"], "").ok()?;
    serde_json::from_str(&text).ok()
}

fn until<T>(what: &str, seen: impl FnMut() -> Option<T>) -> T {
    testkit::wait_for(what, SOON, seen)
}

/// A namespace that is gone afterwards.
struct Place;

impl Place {
    fn make() -> Self {
        let _ = kubectl(&["delete", "namespace", NAMESPACE, "--wait=true"], "");
        kubectl(&["create", "namespace", NAMESPACE], "").expect("created");
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"], "");
    }
}

fn gateway(name: &str, listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n  gatewayClassName: tulle\n  infrastructure: {{labels: {{team: shop}}, annotations: {{note: kept}}}}\n  listeners: [{listeners}]\n"
    )
}

/// A service of the example, from the image of the control plane.
fn backend() -> String {
    let image = kubectl(
        &[
            "-n",
            "tulle-system",
            "get",
            "deployment",
            "tulle-control",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ],
        "",
    )
    .expect("Tulle is deployed: scripts/kubernetes.sh");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: reviews, labels: {{app: reviews}}}}\nspec:\n  containers:\n    - {{name: reviews, image: \"{image}\", imagePullPolicy: IfNotPresent, args: [bookshop, reviews-v1], env: [{{name: PORT, value: \"9080\"}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: reviews}}\nspec: {{selector: {{app: reviews}}, ports: [{{port: 80, targetPort: 9080}}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: all}}\nspec: {{parentRefs: [{{name: web}}], rules: [{{backendRefs: [{{name: reviews, port: 80}}]}}]}}\n"
    )
}

fn status(address: &str, port: u16) -> Option<u16> {
    let mut raw = Raw::connect((address, port)).ok()?;
    raw.send("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .ok()?;
    Some(raw.response(Duration::from_secs(5)).ok()?.status)
}

fn pods() -> Vec<String> {
    let select = "gateway.networking.k8s.io/gateway-name=web";
    let arguments = [
        "-n",
        NAMESPACE,
        "get",
        "pods",
        "-l",
        select,
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ];
    let uids = kubectl(&arguments, "").unwrap_or_default();
    uids.split_whitespace().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs a cluster with Tulle in it: make kubernetes-e2e"]
fn a_gateway_runs_in_pods_that_come_and_go_with_it() {
    let _place = Place::make();
    apply(&backend());
    apply(&gateway("web", "{name: http, port: 80, protocol: HTTP}"));
    let address = until("an address", || {
        let gateway = find("gateway", "web")?;
        gateway["status"]["addresses"][0]["value"]
            .as_str()
            .map(str::to_owned)
    });
    until("an answer", || (status(&address, 80)? == 200).then_some(()));
    until("Programmed", || {
        let gateway = find("gateway", "web")?;
        let conditions = gateway["status"]["conditions"].as_array()?.clone();
        let programmed = conditions.iter().find(|c| c["type"] == "Programmed")?;
        (programmed["status"] == "True").then_some(())
    });
    for kind in ["serviceaccount", "configmap", "deployment", "service"] {
        let metadata = find(kind, "web-tulle").expect(kind)["metadata"].clone();
        assert_eq!(metadata["labels"]["team"], "shop", "{kind}: {metadata}");
        assert_eq!(metadata["annotations"]["note"], "kept", "{kind}");
        assert_eq!(metadata["ownerReferences"][0]["name"], "web", "{kind}");
    }

    // Another port is opened by the same pods.
    let before = pods();
    assert_eq!(before.len(), 1);
    apply(&gateway(
        "web",
        "{name: http, port: 80, protocol: HTTP}, {name: more, port: 8080, protocol: HTTP}",
    ));
    until("the other port", || {
        (status(&address, 8080)? == 200).then_some(())
    });
    assert_eq!(pods(), before);

    // What somebody changes or deletes is put right.
    let scale = [
        "-n",
        NAMESPACE,
        "patch",
        "service",
        "web-tulle",
        "--type=json",
        "-p",
        r#"[{"op": "remove", "path": "/metadata/labels/team"}]"#,
    ];
    kubectl(&scale, "").expect("patched");
    until("the label again", || {
        (find("service", "web-tulle")?["metadata"]["labels"]["team"] == "shop").then_some(())
    });
    kubectl(&["-n", NAMESPACE, "delete", "deployment", "web-tulle"], "").expect("deleted");
    until("the Deployment again", || find("deployment", "web-tulle"));

    kubectl(&["-n", NAMESPACE, "delete", "gateway", "web"], "").expect("deleted");
    for kind in ["deployment", "service", "serviceaccount", "configmap"] {
        until("its end", || {
            find(kind, "web-tulle").is_none().then_some(())
        });
    }
}

#[test]
#[ignore = "needs a cluster with Tulle in it: make kubernetes-e2e"]
fn what_is_not_ours_is_left_alone() {
    let _place = Place::make();
    apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: shop-tulle, labels: {mine: yes-it-is}}\nspec: {ports: [{port: 1}]}\n",
    );
    apply(&gateway("shop", "{name: http, port: 80, protocol: HTTP}"));
    let message = until("Programmed to be False", || {
        let gateway = find("gateway", "shop")?;
        let conditions = gateway["status"]["conditions"].as_array()?.clone();
        let programmed = conditions.iter().find(|c| c["type"] == "Programmed")?;
        let message = programmed["message"].as_str()?;
        (programmed["status"] == "False" && message.contains("Service")).then(|| message.to_owned())
    });
    assert!(
        message.contains("does not belong to this Gateway"),
        "{message}"
    );
    let service = find("service", "shop-tulle").expect("still there");
    assert_eq!(service["spec"]["ports"][0]["port"], 1);
    assert!(service["metadata"]["ownerReferences"].is_null());
    // As soon as the name is free, it is taken.
    kubectl(&["-n", NAMESPACE, "delete", "service", "shop-tulle"], "").expect("deleted");
    until("a Service", || {
        (find("service", "shop-tulle")?["spec"]["ports"][0]["port"] == 80).then_some(())
    });
}
