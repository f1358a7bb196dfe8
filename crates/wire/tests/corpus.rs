//! Replays the kept inputs of the fuzz targets: each was odd enough to be kept once.
#[path = "../../../fuzz/checks/wire.rs"]
mod checks;

#[path = "../../../fuzz/checks/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn request_head() {
    replay("request_head", checks::request_head);
}

#[test]
fn response_head() {
    replay("response_head", checks::response_head);
}

#[test]
fn chunked() {
    replay("chunked", checks::chunked);
}
