//! An API server that has no time: 429 for everything that the control plane asks, by API Priority
//! and Fairness.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::process::Process;

use super::world::{SOON, World, accepted};

/// A level of priority without a seat, and the control plane's account in it. A request of it is let
/// in where no other is being served, so that none starves; all others are answered 429.
fn no_seats(account: &str) -> String {
    format!(
        "apiVersion: flowcontrol.apiserver.k8s.io/v1\nkind: PriorityLevelConfiguration\nmetadata: {{name: {account}}}\n\
         spec: {{type: Limited, limited: {{nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {{type: Reject}}}}}}\n---\n\
         apiVersion: flowcontrol.apiserver.k8s.io/v1\nkind: FlowSchema\nmetadata: {{name: {account}}}\nspec:\n\
         \x20 priorityLevelConfiguration: {{name: {account}}}\n  matchingPrecedence: 2\n  rules:\n\
         \x20 - subjects: [{{kind: ServiceAccount, serviceAccount: {{name: {account}, namespace: {account}}}}}]\n\
         \x20   resourceRules: [{{verbs: [\"*\"], apiGroups: [\"*\"], resources: [\"*\"], clusterScope: true, namespaces: [\"*\"]}}]\n\
         \x20   nonResourceRules: [{{verbs: [\"*\"], nonResourceURLs: [\"*\"]}}]\n"
    )
}

/// A request of the account that takes a minute to say what it wants.
fn slow_request(world: &World) -> Process {
    let config = std::fs::read_to_string(world.dir.join("kubeconfig")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let token = config["users"][0]["user"]["token"].as_str().unwrap();
    let body = world.dir.write("slow.json", "x".repeat(1 << 20));
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--insecure", "--limit-rate", "1K"]);
    curl.args(["--header", &format!("Authorization: Bearer {token}")]);
    curl.args(["--header", "Content-Type: application/json"]);
    curl.args(["--header", "Expect:"]);
    curl.args(["--data-binary", &format!("@{}", body.display())]);
    let (server, ns) = (world.way.server, &world.namespace);
    curl.arg(format!(
        "https://{server}/api/v1/namespaces/{ns}/configmaps"
    ));
    Process::spawn("slow", &mut curl, world.dir.path())
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn an_api_server_that_says_too_many_requests_is_tried_until_it_answers() {
    let mut world = World::new("busy");
    world.start_control();
    world.start_gateway();
    world.serves("first");
    world.says("accepted", "httproute", "all", accepted(1));

    world.apply(&no_seats(&world.namespace));
    // Watches that run take no seat: they have to begin again to be refused.
    let refused = |world: &World| {
        let log = world.control.as_ref()?.stderr();
        let failing = world.watch("HTTPRoute")["state"] == "failing";
        (failing && log.contains("Too many requests")).then_some(())
    };
    let mut slow = slow_request(&world);
    testkit::wait_for("429 Too Many Requests", SOON, || {
        if !slow.is_running() {
            slow = slow_request(&world);
        }
        world.way.cut();
        world.way.open();
        testkit::deadline::try_wait_for(Duration::from_secs(5), || refused(&world))
    });
    world.apply(&world.route("second"));
    let failures = |world: &World| world.watch("HTTPRoute")["failures"].as_u64();
    let before = failures(&world).expect("a number");
    testkit::wait_for("further attempts", SOON, || {
        (failures(&world)? > before + 1).then_some(())
    });
    assert_eq!(world.word().as_deref(), Some("first"));
    let route = world.find("httproute", "all").expect("the route");
    assert!(accepted(1)(&route), "nobody could write it: {route:#}");

    drop(slow);
    world.run_kubectl(&["delete", "flowschema", &world.namespace]);
    world.serves("second");
    world.says("accepted", "httproute", "all", accepted(2));
}
