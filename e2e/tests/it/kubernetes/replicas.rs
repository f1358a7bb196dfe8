//! Two control planes of one cluster: one authority, one Lease, one who writes.

use std::path::Path;

use serde_json::Value;

use super::world::{SOON, World, accepted, holds};

fn leads(source: &Value) -> bool {
    source["leader"] == true
}

fn writes(world: &World, data: &Path) -> Option<u64> {
    world.source_in(data)["statusWrites"].as_u64()
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn the_holder_of_the_lease_writes_status_and_when_it_dies_another_does() {
    let mut world = World::new("replicas");
    let (a, b) = (world.dir.join("a"), world.dir.join("b"));
    let mut first = world.control_in(&a, &[]);
    testkit::wait_for("the first to hold the Lease", SOON, || {
        leads(&world.source_in(&a)).then_some(())
    });
    let _second = world.control_in(&b, &[]);
    world.says("accepted", "httproute", "all", accepted(1));
    assert!(writes(&world, &a) > Some(0));
    assert!(!leads(&world.source_in(&b)));
    assert_eq!(writes(&world, &b), Some(0));

    // What its proxy acknowledges to the one, the other writes.
    world.start_gateway_at(&b, World::xds_of(&b));
    world.serves("first");
    world.says("programmed, as the other says", "gateway", "web", |o| {
        holds(&o["status"]["conditions"], "Programmed", 1)
    });
    assert_eq!(writes(&world, &b), Some(0));

    first.kill();
    world.apply(&world.route("second"));
    // Proxies need not wait for the Lease.
    world.serves("second");
    world.says("accepted by the other", "httproute", "all", accepted(2));
    assert!(leads(&world.source_in(&b)));
    assert!(writes(&world, &b) > Some(0));
    world.says("still programmed", "gateway", "web", |o| {
        holds(&o["status"]["conditions"], "Programmed", 1)
    });
}
