//! Cases of weights.

use super::*;
use crate::conformance::assert_seventy_thirty;

pub(super) fn objects() -> String {
    [
        case(
            "weight",
            "  - backendRefs: [{name: echo-v1, port: 8080, weight: 70}, {name: echo-v2, port: 8080, weight: 30}]",
        ),
        frontend("grpc-weight"),
        // Nobody is sent to the third, which need not exist.
        route(
            "GRPCRoute",
            "grpc-weight",
            Some(7070),
            "  - backendRefs: [{name: echo-v1, port: 7070, weight: 70}, {name: echo-v2, port: 7070, weight: 30}, {name: echo-v3, port: 7070, weight: 0}]",
        ),
    ]
    .concat()
}

pub(super) fn mesh_http_route_weight(mode: Mode) {
    let world = world(mode);
    let mut raw = world.client.connect("weight");
    let request = world.client.text("GET", "weight", "/", "", "");
    assert_seventy_thirty(|_| {
        let response = raw.request(&request);
        let by = response.header("x-served-by");
        by.unwrap_or_else(|| panic!("{response:?}")).to_owned()
    });
}

pub(super) fn mesh_grpc_route_weight(mode: Mode) {
    let world = world(mode);
    let client = &world.client;
    client.inside(|| {
        let runtime = grpc::runtime();
        let mut grpc = runtime.block_on(grpc::client(client, "grpc-weight:7070"));
        assert_seventy_thirty(|_| {
            let called = runtime.block_on(grpc::unary(&mut grpc, "Who", ""));
            called.unwrap()
        });
    });
}
