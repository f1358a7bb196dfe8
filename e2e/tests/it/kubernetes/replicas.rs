//! Two control planes of one cluster: one authority, one Lease, one who writes.

use std::path::Path;

use serde_json::Value;

use super::way::Relay;
use super::world::{SOON, World, accepted};

fn leads(source: &Value) -> bool {
    source["leader"] == true
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn the_holder_of_the_lease_writes_status_and_when_it_dies_another_does() {
    let mut world = World::new("replicas");
    let (a, b) = (world.dir.join("a"), world.dir.join("b"));
    let mut first = world.control_in(&a, &[]);
    let writes = |data: &Path| world.source_in(data)["statusWrites"].as_u64();
    testkit::wait_for("the first to hold the Lease", SOON, || {
        leads(&world.source_in(&a)).then_some(())
    });
    let _second = world.control_in(&b, &[]);
    world.says("accepted", "httproute", "all", accepted(1));
    assert!(writes(&a) > Some(0));
    assert!(!leads(&world.source_in(&b)));
    assert_eq!(writes(&b), Some(0));

    // In front of both, as their Service would be.
    let relay = Relay::to(World::xds_of(&a));
    world.start_gateway_at(&a, relay.addr);
    world.serves("first");

    first.kill();
    relay.turn(World::xds_of(&b));
    world.apply(&world.route("second"));
    // The proxy asks whoever is there; it need not wait for the Lease.
    world.serves("second");
    world.says("accepted by the other", "httproute", "all", accepted(2));
    assert!(leads(&world.source_in(&b)));
    assert!(world.source_in(&b)["statusWrites"].as_u64() > Some(0));
    world.says("programmed as the other sees it", "gateway", "web", |o| {
        super::world::holds(&o["status"]["conditions"], "Programmed", 1)
    });
}
