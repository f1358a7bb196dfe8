//! Replays the kept inputs of the fuzz targets: each was odd enough to be kept once.
#[path = "../../../fuzz/checks/net.rs"]
mod checks;

#[path = "../../../fuzz/checks/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn client_hello() {
    replay("client_hello", checks::client_hello);
}

#[test]
fn proxy_header() {
    replay("proxy_header", checks::proxy_header);
}
