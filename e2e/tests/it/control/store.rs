//! What was acknowledged is there after a `kill -9`, and whole; and nobody shares a store.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

/// Two services that belong together, and a third that every set changes.
fn set(n: usize) -> String {
    let service = |name: &str, labels: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: kept, labels: {labels}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    let number = format!("{{set: \"{n}\"}}");
    [
        service(&format!("left-{n}"), "{}"),
        service("counter", &number),
        service(&format!("right-{n}"), "{}"),
    ]
    .concat()
}

#[test]
fn killed_at_any_moment_it_keeps_what_it_acknowledged() {
    let mut plane = Plane::start("kill");
    let mut next = 0;
    let mut acknowledged = BTreeSet::new();
    for _ in 0..6 {
        let api = plane.address("api");
        let delay = Duration::from_micros(20_000 + RandomState::new().hash_one(next) % 150_000);
        let (first, stopped) = (next, AtomicBool::new(false));
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut done = Vec::new();
                let Ok(mut raw) = Raw::connect(api) else { return (first, done) };
                for n in first.. {
                    let body = set(n);
                    let sent = raw.send(format!(
                        "POST /api/v1/apply HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    ));
                    match sent.map(|()| raw.response(SOON)) {
                        Ok(Ok(answer)) if answer.status == 200 => done.push(n),
                        other => {
                            assert!(stopped.load(Ordering::SeqCst), "before the kill: {other:?}");
                            return (n + 1, done);
                        }
                    }
                }
                unreachable!("there are enough numbers")
            });
            thread::sleep(delay);
            stopped.store(true, Ordering::SeqCst);
            plane.process.kill();
            let (after, done) = writer.join().expect("the writer");
            next = after;
            acknowledged.extend(done);
        });
        plane.restart();
        let services = plane.json(&["get", "services", "-n", "kept"]);
        let names: BTreeSet<String> = services["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|s| Some(s["metadata"]["name"].as_str()?.to_owned()))
            .collect();
        let has = |side: &str, n: usize| names.contains(&format!("{side}-{n}"));
        for n in 0..next {
            assert_eq!(
                has("left", n),
                has("right", n),
                "set {n} is there by half (kill after {delay:?})"
            );
            assert!(
                has("left", n) || !acknowledged.contains(&n),
                "set {n} was acknowledged and is lost (kill after {delay:?})"
            );
        }
        // Not acknowledged, yet written: allowed, and then the counter has it as well.
        if let Some(last) = (0..next).rev().find(|n| has("left", *n)) {
            let counter = plane.json(&["get", "service", "counter", "-n", "kept"]);
            assert_eq!(
                counter["metadata"]["labels"]["set"],
                last.to_string(),
                "(kill after {delay:?})"
            );
        }
    }
    assert!(
        acknowledged.len() > 20,
        "only {} sets were written",
        acknowledged.len()
    );
}

#[test]
fn a_second_control_plane_is_refused_and_the_first_goes_on() {
    let mut plane = Plane::start("second");
    let free = [
        "--xds",
        "127.0.0.1:0",
        "--api",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--otlp",
        "127.0.0.1:0",
    ];
    let second = plane.cli(&[&["control"], &free[..]].concat());
    assert_eq!(second.code(), 1);
    has(
        &second.stderr,
        &[
            "in use by another control plane",
            &format!("process {}", plane.process.pid()),
            "TULLE_DATA_DIR",
        ],
    );

    // The same database from another directory.
    let other = DataDir::new("other");
    let store = format!("sqlite:{}", plane.dir.join("control.db").display());
    let mut command = tulle(other.path());
    command.args(["control", "--store", &store]).args(free);
    let second = Process::run("second", &mut command, other.path(), SOON);
    assert_eq!(second.code(), 1);
    has(&second.stderr, &["control.db: in use by another process"]);

    // The same port.
    let mut command = tulle(other.path());
    command
        .args(["control", "--xds", &plane.address("xds").to_string()])
        .args(&free[2..]);
    let second = Process::run("second", &mut command, other.path(), SOON);
    assert_eq!(second.code(), 1);
    has(
        &second.stderr,
        &[
            "gRPC for proxies cannot listen on",
            "another process has that port",
            "--xds",
        ],
    );

    plane.apply("shop.yaml", SHOP).success();
    assert!(plane.process.is_running());
}

#[test]
fn a_damaged_database_is_told_and_left_as_it_is() {
    let mut plane = Plane::start("damaged");
    plane.apply("shop.yaml", SHOP).success();
    assert!(plane.process.terminate(SOON).success());
    let path = plane.dir.join("control.db");
    let whole = fs::read(&path).expect("a database");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        let mut command = tulle(plane.dir.path());
        command.args(&plane.arguments);
        let run = Process::run("damaged", &mut command, plane.dir.path(), SOON);
        assert_eq!(run.code(), 1, "{}", run.stderr);
        has(
            &run.stderr,
            &["control.db", "damaged", "restore a copy, or move it away"],
        );
        assert_eq!(fs::read(&path).expect("still there"), bytes);
    };
    refused(b"this was a database once, and then somebody wrote a text over it, which happens");
    let mut scribbled = whole.clone();
    let middle = scribbled.len() / 2;
    scribbled[middle - 3000..middle + 3000].fill(0xa5);
    refused(&scribbled);

    fs::write(&path, &whole).expect("restored");
    plane.restart();
    assert_eq!(
        plane
            .cli(&["get", "service", "reviews", "-n", "shop"])
            .code(),
        0
    );
}

#[test]
fn a_token_is_spent_for_good_even_when_killed_right_after() {
    let mut plane = Plane::start("spent");
    let token = plane
        .cli(&["token", "create", "-s", "a", "-n", "shop"])
        .success();
    let runtime = rpc::runtime();
    runtime.block_on(async {
        let mut signer = rpc::signer(&plane, None);
        signer
            .sign(rpc::request(token.trim()))
            .await
            .expect("signed");
    });
    plane.kill_and_restart();
    let again = runtime.block_on(async {
        let mut signer = rpc::signer(&plane, None);
        signer.sign(rpc::request(token.trim())).await
    });
    has(again.expect_err("spent").message(), &["was used already"]);
}
