//! `tulle control --store kubernetes` beside a real API server.
//!
//! Not part of a normal run: it needs a cluster with Gateway API's CRDs and no other Tulle, in
//! `TULLE_TEST_KUBECONFIG` or `KUBECONFIG`, and `kubectl`: `make kubernetes-e2e`, or
//! `cargo test --profile quick --workspace --test it -- --ignored kubernetes:: --test-threads=1`.
//!
//! The control plane and the Gateway's proxy run here, beside the cluster, and reach the API server
//! through [`way::Way`], which a test can cut.

mod busy;
mod gateways;
mod kinds;
mod kit;
mod replicas;
mod restarts;
mod way;
mod world;

use serde_json::Value;
use testkit::process::Process;

use world::{SOON, World, accepted, condition, holds};

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn what_is_in_the_cluster_is_served_and_its_status_written() {
    let mut world = World::new("status");
    world.start_control();
    let class = world.says("accepted", "gatewayclass", &world.namespace.clone(), |o| {
        holds(&o["status"]["conditions"], "Accepted", 1)
    });
    let features = class["status"]["supportedFeatures"]
        .as_array()
        .expect("features");
    assert!(
        features.iter().any(|f| f["name"] == "HTTPRoute"),
        "{features:?}"
    );

    // Without a proxy nothing is programmed, whatever else holds.
    let before = world.says("accepted", "gateway", "web", |o| {
        holds(&o["status"]["conditions"], "Accepted", 1)
    });
    let programmed = condition(&before["status"]["conditions"], "Programmed");
    assert_ne!(programmed.expect("said").0, "True", "{before:#}");
    world.start_gateway();
    world.serves("first");
    let web = world.says("programmed by the proxy", "gateway", "web", |o| {
        let listener = &o["status"]["listeners"][0];
        holds(&o["status"]["conditions"], "Programmed", 1)
            && holds(&listener["conditions"], "Programmed", 1)
            && listener["attachedRoutes"] == 1
    });
    let kinds = &web["status"]["listeners"][0]["supportedKinds"];
    assert!(kinds.as_array().is_some_and(|k| !k.is_empty()), "{web:#}");

    let first = world.says("accepted", "httproute", "all", accepted(1));
    world.apply(&world.route("second"));
    world.serves("second");
    let second = world.says("the new generation", "httproute", "all", accepted(2));
    let since =
        |o: &Value| o["status"]["parents"][0]["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(
        since(&first),
        since(&second),
        "nothing has changed its status"
    );

    // Somebody overwrites it: it is said again.
    let patch = r#"{"status":{"parents":[]}}"#;
    let arguments = [
        "patch",
        "httproute",
        "all",
        "-n",
        &world.namespace,
        "--subresource=status",
    ];
    let mut command = world.kubectl(&arguments);
    command.args(["--type=merge", "-p", patch]);
    Process::run("kubectl", &mut command, world.dir.path(), SOON).success();
    world.says("said again", "httproute", "all", accepted(2));

    let arguments = ["delete", "httproute", "all", "-n", &world.namespace];
    let mut command = world.kubectl(&arguments);
    Process::run("kubectl", &mut command, world.dir.path(), SOON).success();
    testkit::wait_for("the route to be gone", SOON, || {
        world.word().is_none().then_some(())
    });
    world.says("no route", "gateway", "web", |o| {
        o["status"]["listeners"][0]["attachedRoutes"] == 0
    });
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn the_api_server_may_be_away() {
    let mut world = World::new("away");
    world.start_control();
    world.start_gateway();
    world.serves("first");
    let source = world.source();
    assert_eq!(source["synced"], true, "{source:#}");

    world.way.cut();
    world.watches_fail();
    world.serves("first");

    // Also a control plane that starts meanwhile has what it last knew.
    world.control.take().unwrap().kill();
    world.apply(&world.route("second"));
    world.start_control();
    let control = world.control.as_mut().unwrap();
    control.wait_stderr("begins with the objects of the last run", SOON);
    let arguments = [
        "get",
        "httproute",
        "all",
        "-n",
        &world.namespace,
        "-o",
        "json",
    ];
    let mut command = world.tulle(&arguments);
    let text = Process::run("get", &mut command, world.dir.path(), SOON).success();
    assert!(
        text.contains("first") && text.contains("kubernetes"),
        "{text}"
    );

    world.way.open();
    let file = world.dir.write("mine.yaml", world.route("third"));
    testkit::wait_for("all to be listed again", SOON, || {
        (world.source()["synced"] == true).then_some(())
    });

    // What belongs to Kubernetes is changed there.
    let mut command = world.tulle(&["apply", "-f"]);
    command.arg(&file);
    let refused = Process::run("apply", &mut command, world.dir.path(), SOON);
    assert_ne!(refused.code(), 0);
    assert!(
        refused.stderr.contains("kubectl edit httproute all"),
        "{}",
        refused.stderr
    );
    world.apply(&world.route("third"));
    world.says("the status follows", "httproute", "all", |o| {
        holds(&o["status"]["parents"][0]["conditions"], "Accepted", 3)
    });
}
