//! What a control plane survives of a real API server: revisions that are gone, and a restart. What
//! was said last is served, what changed meanwhile arrives, and status is written afterwards.

use super::kit::Kit;
use super::world::{SOON, World, accepted};

#[test]
#[ignore = "needs the kit's cluster: make kubernetes-e2e"]
fn resource_versions_may_expire_while_watches_are_cut() {
    let mut world = World::new("expired");
    let kit = Kit::of(&world.kubeconfig);
    world.apply(&world.route_of("more", "more.example", "more"));
    world.start_control();
    world.start_gateway();
    world.serves("first");
    assert_eq!(world.word_of("more.example").as_deref(), Some("more"));
    world.says("accepted", "httproute", "all", accepted(1));
    let lists = world.watch("HTTPRoute")["lists"].as_u64().expect("lists");

    world.way.cut();
    world.watches_fail();
    world.apply(&world.route("second"));
    world.delete("httproute", "more");
    kit.compact();
    // One that begins anew knows nothing of before, and cannot learn it from etcd any more.
    kit.kill_api_server().start();
    assert_eq!(world.word().as_deref(), Some("first"));
    assert_eq!(world.word_of("more.example").as_deref(), Some("more"));

    world.way.open();
    world.serves("second");
    testkit::wait_for("the end of the route that is gone", SOON, || {
        (world.word_of("more.example").as_deref() == Some("second")).then_some(())
    });
    world.says("accepted", "httproute", "all", accepted(2));
    let now = world.watch("HTTPRoute");
    assert!(now["lists"].as_u64() > Some(lists), "{now:#}");
    assert_eq!(now["state"], "watching", "{now:#}");
}

#[test]
#[ignore = "needs the kit's cluster: make kubernetes-e2e"]
fn the_api_server_may_be_killed_and_start_again() {
    let mut world = World::new("restart");
    let kit = Kit::of(&world.kubeconfig);
    world.start_control();
    world.start_gateway();
    world.serves("first");
    world.says("accepted", "httproute", "all", accepted(1));

    let killed = kit.kill_api_server();
    world.watches_fail();
    assert_eq!(world.word().as_deref(), Some("first"));
    killed.start();
    world.apply(&world.route("second"));
    world.serves("second");
    world.says("accepted", "httproute", "all", accepted(2));
    testkit::wait_for("all watches to work", SOON, || {
        let source = world.source();
        let all = source["watches"].as_array()?;
        all.iter().all(|w| w["state"] == "watching").then_some(())
    });
}
