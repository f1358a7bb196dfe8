//! Leases: who is silent is forgotten, who comes back is taken back, and a control plane that was
//! away forgets nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use testkit::upstream::{Step, Upstream};

use super::*;

/// A lease, and the time until its end is noticed.
const LEASE: Duration = Duration::from_secs(15);

#[test]
fn who_is_silent_is_forgotten_and_taken_back() {
    let plane = Plane::start("lease");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let silent = plane.serve("reviews", "reviews-0", program.port());
    let other = Upstream::start(|_| Step::answer("ratings"));
    let mut killed = plane.serve("ratings", "ratings-0", other.port());
    let mut polite = plane.serve("stock", "stock-0", other.port());
    let (_caller, proxy) = plane.client("caller", &[]);
    wait_through(proxy, "reviews.shop", "reviews");
    wait_through(proxy, "ratings.shop", "ratings");

    // In order: at once, not at the end of the lease.
    polite.terminate(SOON);
    assert!(plane.workload("stock-0").is_none(), "it did not deregister");

    silent.signal(Signal::SIGSTOP);
    let (program_pid, proxy_pid) = (
        programmed::child_of(killed.pid(), "sleep"),
        programmed::proxy_of(killed.pid()),
    );
    killed.kill();
    // Its children go with it, so nobody waits for answers of a workload without a supervisor.
    wait_for("the end of its children", SOON, || {
        [program_pid, proxy_pid]
            .iter()
            .all(|pid| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
                stat.map_or(true, |stat| stat.contains(") Z "))
            })
            .then_some(())
    });
    let begun = std::time::Instant::now();
    wait_for("the end of both leases", 2 * LEASE, || {
        let left = [plane.workload("reviews-0"), plane.workload("ratings-0")];
        left.iter().all(Option::is_none).then_some(())
    });
    assert!(
        begun.elapsed() > LEASE / 3,
        "forgotten after {:?} already",
        begun.elapsed()
    );
    let refused = wait_for("the proxy to learn of it", SOON, || {
        let response = through(proxy, "reviews.shop");
        (response.status != 200).then_some(response)
    });
    assert_eq!(refused.status, 503, "{refused:?}");
    has(
        refused.header("proxy-status").unwrap_or_default(),
        &["no_endpoints"],
    );

    assert_eq!(plane.metric("tulle_registry_leases_expired_total"), 2);

    silent.signal(Signal::SIGCONT);
    wait_for("it is back", SOON, || {
        plane.workload("reviews-0").filter(|w| w["ready"] == true)
    });
    wait_through(proxy, "reviews.shop", "reviews");
}

#[test]
fn a_control_plane_that_was_away_forgets_nobody() {
    let mut plane = Plane::start("away");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let _reviews = plane.serve("reviews", "reviews-0", program.port());
    let (_caller, proxy) = plane.client("caller", &[]);
    wait_through(proxy, "reviews.shop", "reviews");
    let before = plane.workload("reviews-0").expect("it is there");

    // Requests all the while: none is lost, on new connections and on an old one.
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut kept = Raw::connect(("127.0.0.1", proxy)).expect("the proxy listens");
            let mut answered = 0;
            while !stopped.load(Ordering::Relaxed) {
                let old =
                    kept.request("GET http://reviews.shop/ HTTP/1.1\r\nhost: reviews.shop\r\n\r\n");
                assert_eq!(old.status, 200, "{old:?}");
                let new = through(proxy, "reviews.shop");
                assert_eq!(new.status, 200, "{new:?}");
                answered += 2;
            }
            answered
        });
        plane.kill_and_restart();
        // At once, not with the next heartbeat.
        let after = plane.workload("reviews-0").expect("it is still there");
        for field in [
            "name",
            "address",
            "ports",
            "tunnelPort",
            "ready",
            "serviceAccount",
        ] {
            assert_eq!(after[field], before[field], "{field}");
        }
        wait_for("heartbeats and streams", SOON, || {
            let back = |name| {
                let workload = plane.workload(name)?;
                let seen = workload
                    .pointer("/lease/lastSeen")
                    .is_some_and(|t| !t.is_null());
                (seen && workload["proxySynced"] == true).then_some(())
            };
            back("reviews-0").and(back("caller"))
        });
        stopped.store(true, Ordering::Relaxed);
        assert!(load.join().expect("the load") > 100);
    });

    // Even its database may go: those who run register again, under their names.
    plane.process.kill();
    for file in ["control.db", "control.db-wal", "control.db-shm"] {
        let _ = fs::remove_file(plane.dir.join(file));
    }
    plane.restart();
    wait_for("both are registered again", SOON, || {
        plane.workload("caller")?;
        plane.workload("reviews-0").filter(|w| w["ready"] == true)
    });
    wait_through(proxy, "reviews.shop", "reviews");
    let (_late, proxy) = plane.client("late", &[]);
    wait_through(proxy, "reviews.shop", "reviews");
}

#[test]
fn a_name_that_runs_is_not_given_away() {
    let plane = Plane::start("taken");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let mut first = plane.serve("reviews", "reviews-0", program.port());
    let mut second = plane.run(
        "second",
        &[
            "--service",
            "other",
            "-n",
            "shop",
            "--instance",
            "reviews-0",
            "--",
            "sleep",
            "1000",
        ],
    );
    let status = second.wait(SOON);
    assert!(matches!(status.code(), Some(1 | 2)), "{status}");
    has(&second.stderr(), &["registration refused", "reviews-0"]);
    assert!(first.is_running());
}

#[test]
fn from_another_host_a_token_opens_the_door_and_the_certificate_keeps_it_open() {
    let mut plane = Plane::start("remote");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let (_caller, proxy) = plane.client("caller", &[]);
    // Of the other host there is another data directory, without a socket.
    let elsewhere = DataDir::new("elsewhere");
    let token = plane
        .cli(&["token", "create", "-s", "reviews", "-n", "shop"])
        .success();
    elsewhere.write("token", &token);
    elsewhere.write("garbage", "tulle1.garbage");
    let control = plane.address("xds").to_string();
    let port = format!("{}/http", program.port());
    let run = |instance: &str, service: &str, token: &str| {
        let mut command = tulle(elsewhere.path());
        command
            .args([
                "run",
                "--mode",
                "explicit",
                "-n",
                "shop",
                "--service",
                service,
            ])
            .args(["--instance", instance, "--port", &port])
            .args(["--control", &control]);
        if !token.is_empty() {
            command.args(["--token-file", token]);
        }
        command.args(["--", "sleep", "1000"]);
        Process::spawn(instance, &mut command, elsewhere.path())
    };
    for (service, token, code, part) in [
        ("reviews", "", 2, "--token-file"),
        ("reviews", "nowhere", 2, "cannot be read"),
        ("reviews", "garbage", 2, "--token-file garbage"),
        (
            "payments",
            "token",
            1,
            "good for service account shop/reviews",
        ),
    ] {
        let refused = run("refused", service, token).finish(SOON);
        assert_eq!(refused.code(), code, "{}", refused.stderr);
        has(&refused.stderr, &[part]);
    }

    let mut first = run("reviews-0", "reviews", "token");
    // Ready is told by a heartbeat, after the token is spent.
    first.wait_for("it is ready", 2 * SOON, || {
        plane.workload("reviews-0").filter(|w| w["ready"] == true)
    });
    wait_through(proxy, "reviews.shop", "reviews");
    let replayed = run("reviews-1", "reviews", "token").finish(SOON);
    assert_eq!(replayed.code(), 1, "{}", replayed.stderr);
    has(&replayed.stderr, &["was used already"]);

    // With the registrations lost, the certificate is enough to come back.
    plane.process.kill();
    for file in ["control.db", "control.db-wal", "control.db-shm"] {
        let _ = fs::remove_file(plane.dir.join(file));
    }
    plane.restart();
    first.wait_for("it is registered again", SOON, || {
        plane.workload("reviews-0").filter(|w| w["ready"] == true)
    });
    // And it lives on beyond its first lease.
    let begun = std::time::Instant::now();
    let seen = |plane: &Plane| {
        plane
            .workload("reviews-0")?
            .pointer("/lease/lastSeen")
            .cloned()
    };
    let registered = seen(&plane);
    wait_for("a later heartbeat", SOON, || {
        let now = seen(&plane);
        (now.is_some() && now != registered && begun.elapsed() > LEASE / 3).then_some(())
    });
    first.terminate(SOON);
    assert!(
        plane.workload("reviews-0").is_none(),
        "it did not deregister"
    );
}
