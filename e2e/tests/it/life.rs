//! From a workload's start to its end, and what may happen to it in between.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use testkit::upstream::{Step, Upstream};

use crate::load::Load;
use crate::mesh::{Mesh, Mode, SOON, Server, Workload, binary, in_both_modes};
use crate::routing::{reason, shop_route};

in_both_modes!(
    a_program_can_use_the_mesh_from_its_first_instruction,
    input_output_and_exit_code_are_the_programs_own,
    traffic_and_a_killed_proxy_survive_the_loss_of_the_control_plane,
);

fn named(name: &'static str) -> impl Fn(usize) -> Vec<Step> + Send + 'static {
    move |_| Step::answer(name)
}

fn a_program_can_use_the_mesh_from_its_first_instruction(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let _server = mesh.server("hello", "/http", named("hello"));
    let curl = ["curl", "--silent", "--show-error", "--max-time", "10"];
    for host in ["hello", "hello.default", "hello.default.svc.cluster.local"] {
        let url = format!("http://{host}/");
        let command = [curl.as_slice(), &[&url]].concat();
        let run = mesh.run("once", "once", &[], &command).finish(SOON);
        assert_eq!(run.success(), "hello", "{host}");
    }
    assert!(
        mesh.workload("once").is_none(),
        "it was deregistered at its end"
    );
}

fn input_output_and_exit_code_are_the_programs_own(mode: Mode) {
    let mesh = Mesh::start_in(mode);
    let script = "read word; echo out $word; echo err >&2; cat | wc -c; exit 7";
    let mut process = mesh.run("tool", "tool", &[], &["sh", "-c", script]);
    process.write_stdin("first line\n");
    process.write_stdin(vec![b'x'; 100_000]);
    process.close_stdin();
    let finished = process.finish(SOON);
    assert_eq!(finished.code(), 7);
    assert_eq!(finished.stdout, "out first line\n100000\n");
    assert_eq!(finished.stderr, "err\n");

    let killed = mesh.run("tool", "tool", &[], &["sh", "-c", "kill -SEGV $$"]);
    assert_eq!(killed.finish(SOON).code(), 128 + 11, "as a shell has it");
    let missing = mesh
        .run("tool", "tool", &[], &["no-such-program"])
        .finish(SOON);
    assert_eq!(missing.code(), 127);
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
}

#[test]
fn signals_reach_the_program_and_only_its_end_ends_the_run() {
    let mesh = Mesh::start();
    let script = "trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; \
                  echo started; while :; do sleep 0.05; done";
    let mut process = mesh.run("daemon", "daemon", &[], &["sh", "-c", script]);
    process.wait_stdout("started", SOON);
    for (signal, word) in [(Signal::SIGHUP, "hup"), (Signal::SIGUSR1, "usr1")] {
        process.signal(signal);
        process.wait_stdout(word, SOON);
    }
    assert!(process.is_running());
    assert_eq!(process.terminate(SOON).code(), Some(5));
    assert!(process.stdout().ends_with("term\n"));
    assert!(mesh.workload("daemon").is_none(), "it was deregistered");
}

#[test]
fn nobody_is_sent_to_a_program_that_does_not_listen_yet() {
    let mesh = Mesh::start();
    let port = testkit::place::free_port();
    let client = mesh.client();
    let _server = mesh.idle("late", "late", &["--port", &format!("{port}/http")]);
    assert_eq!(mesh.workload("late").unwrap()["ready"], false);
    for _ in 0..3 {
        assert_eq!(reason(&client.get("late", "/")), "no_healthy_endpoints");
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let _upstream = Upstream::on(listener, named("late"));
    client.until("the first answer", "late", "/", |response| {
        let expected = response.status == 200 || reason(response) == "no_healthy_endpoints";
        assert!(expected, "{response:?}");
        response.status == 200
    });
}

#[test]
fn a_live_change_of_a_route_fails_and_delays_no_request() {
    let mesh = Mesh::start();
    let _a = mesh.server("a", "/http", named("a"));
    let _b = mesh.server("b", "/http", named("b"));
    let to = |name: &str| shop_route(&format!("    - backendRefs: [{{name: {name}, port: 80}}]"));
    mesh.apply(&to("a"));
    let client = mesh.client();
    let load = Load::start(&client, "shop", &["GET", "POST"]);
    load.progress(50);
    for name in ["b", "a", "b", "a", "b"] {
        let before = load.so_far().answers.get(name).copied().unwrap_or(0);
        mesh.apply(&to(name));
        testkit::wait_for("the change to be in force", SOON, || {
            let now = load.so_far().answers.get(name).copied().unwrap_or(0);
            (now >= before + 20).then_some(())
        });
    }
    let outcome = load.stop_without_failures();
    assert!(outcome.slowest < Duration::from_secs(1), "{outcome:?}");
    assert_eq!(outcome.answers.len(), 2, "{outcome:?}");
}

#[test]
fn a_request_in_flight_is_answered_after_its_server_was_told_to_stop() {
    let mesh = Mesh::start();
    let server = mesh.server("slow", "/http", |_| {
        let mut steps = Step::answer("in the end");
        steps.insert(1, Step::Pause(Duration::from_millis(1500)));
        steps
    });
    let client = mesh.client();
    thread::scope(|scope| {
        let request = scope.spawn(|| client.get("slow", "/"));
        testkit::wait_for("the request to arrive", SOON, || {
            (server.upstream.requests() == 1).then_some(())
        });
        server.workload.process.signal(Signal::SIGTERM);
        // Whoever comes now learns that nobody is there.
        testkit::wait_for("the workload to be gone", SOON, || {
            mesh.workload("slow").is_none().then_some(())
        });
        let response = request.join().unwrap();
        assert_eq!(
            (response.status, response.text()),
            (200, "in the end".into())
        );
    });
}

#[test]
fn a_draining_proxy_answers_and_asks_for_another_connection() {
    let mesh = Mesh::start();
    let server = mesh.server("slow", "/http", |_| {
        let mut steps = Step::answer("in the end");
        steps.insert(1, Step::Pause(Duration::from_secs(1)));
        steps
    });
    let mut client = mesh.client();
    let mut raw = client.connect("slow");
    raw.send(client.text("GET", "slow", "/", "", "")).unwrap();
    testkit::wait_for("the request to arrive", SOON, || {
        (server.upstream.requests() == 1).then_some(())
    });
    client.process.signal(Signal::SIGTERM);
    let response = raw.response(SOON).unwrap();
    assert_eq!(
        (response.status, response.text()),
        (200, "in the end".into())
    );
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(raw.read_to_end(SOON).0, b"");
    let status = client.process.wait(SOON);
    assert_eq!(
        status.code(),
        Some(128 + 15),
        "{status:?} {:?}",
        status.signal()
    );
}

#[test]
fn an_idle_http2_connection_is_told_to_go_away() {
    /// RFC 9113 6.8.
    const GOAWAY: u8 = 7;
    let mesh = Mesh::start();
    let client = mesh.client();
    let mut raw = client.connect("anything");
    raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let mut frame = || {
        let head = raw.read_exact(9, SOON).unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        raw.read_exact(length as usize, SOON).unwrap();
        head[3]
    };
    assert_eq!(frame(), 4, "SETTINGS come first");
    client.process.signal(Signal::SIGTERM);
    let mut seen = Vec::new();
    while seen.last() != Some(&GOAWAY) {
        seen.push(frame());
        assert!(seen.len() < 10, "{seen:?}");
    }
}

fn traffic_and_a_killed_proxy_survive_the_loss_of_the_control_plane(mode: Mode) {
    let mut mesh = Mesh::start_in(mode);
    let server = mesh.server("shop", "/http", named("shop"));
    let client = mesh.client();
    assert_eq!(client.get("shop", "/").text(), "shop");
    if mode == Mode::Transparent {
        // Its network namespace is the mesh's: it must not end with the control plane.
        return a_killed_proxy_comes_back(&server, &client);
    }
    for workload in [&server.workload, &client] {
        testkit::wait_for("the configuration on disk", SOON, || {
            let kept = std::fs::read(workload.state.join("resources.bin")).ok()?;
            let whole = format!("sa/{}", workload.name).into_bytes();
            kept.windows(whole.len()).any(|w| w == whole).then_some(())
        });
    }
    let addresses = std::fs::read_to_string(mesh.dir.join("control.json")).unwrap();
    let addresses: Value = serde_json::from_str(&addresses).unwrap();
    let xds = addresses["xds"].as_str().unwrap().to_owned();
    mesh.control.take().unwrap().kill();
    assert_eq!(client.get("shop", "/").text(), "shop");
    a_killed_proxy_comes_back(&server, &client);

    mesh.start_control(&xds);
    mesh.apply(&shop_route(
        "    - matches: [{path: {value: /only}}]\n      backendRefs: [{name: shop, port: 80}]",
    ));
    client.until("the new route", "shop", "/", |r| r.status == 404);
}

/// Kills both proxies; connections wait for the new ones.
fn a_killed_proxy_comes_back(server: &Server, client: &Workload) {
    for workload in [&server.workload, client] {
        let pid = workload.proxy_pid();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        testkit::wait_for("another proxy", SOON, || {
            // Refused connections fail here: the sockets outlive the proxy.
            let response = client.get("shop", "/");
            assert_eq!((response.status, response.text()), (200, "shop".into()));
            (workload.proxy_pid() != pid).then_some(())
        });
    }
    let response = client.get("shop", "/");
    assert_eq!((response.status, response.text()), (200, "shop".into()));
}

#[test]
fn an_endpoint_that_is_killed_costs_no_request() {
    let mesh = Mesh::start();
    let first = mesh.instance("pair", "first", "/http", &[], named("first"));
    let _second = mesh.instance("pair", "second", "/http", &[], named("second"));
    let client = mesh.client();
    let load = Load::start(&client, "pair", &["GET", "GET"]);
    load.progress(100);
    first.workload.process.signal_group(Signal::SIGKILL);
    load.progress(300);
    let outcome = load.stop_without_failures();
    assert_eq!(outcome.answers.len(), 2, "{outcome:?}");
    // It is still on the list until its lease ends; what was not delivered may be sent again.
    for _ in 0..20 {
        let response = client.request("POST", "pair", "/", "", "an order");
        assert_eq!((response.status, response.text()), (200, "second".into()));
    }
}

#[test]
fn scaling_up_and_down_costs_no_request() {
    let mesh = Mesh::start();
    let _stays = mesh.instance("web", "stays", "/http", &[], named("stays"));
    let client = mesh.client();
    let load = Load::start(&client, "web", &["GET", "POST"]);
    load.progress(50);
    for name in ["one", "two"] {
        let mut comes = mesh.instance("web", name, "/http", &[], named(name));
        testkit::wait_for("its first request", SOON, || {
            (comes.upstream.requests() > 20).then_some(())
        });
        // The program here ends at once; one that serves would first finish what it has.
        comes.workload.process.terminate(SOON);
        load.progress(50);
    }
    let outcome = load.stop_without_failures();
    assert_eq!(outcome.answers.len(), 3, "{outcome:?}");
}

#[test]
fn a_rolling_restart_of_real_programs_costs_no_request() {
    let mesh = Mesh::start();
    let start = |instance: &str| {
        let port = format!("{}/http", testkit::place::free_port());
        let binary = binary();
        let program = [binary.to_str().unwrap(), "bookshop", "reviews-v1"];
        let process = mesh.run("reviews", instance, &["--port", &port], &program);
        mesh.wait_ready(instance);
        process
    };
    let mut running = vec![start("reviews-0"), start("reviews-1")];
    let client = mesh.client();
    let load = Load::start(&client, "reviews/reviews/9780141439518", &["GET", "GET"]);
    for number in 2..5 {
        load.progress(100);
        running.push(start(&format!("reviews-{number}")));
        let status = running.remove(0).terminate(SOON);
        assert_eq!(status.code(), Some(0), "a program that ends in order");
    }
    load.progress(100);
    load.stop_without_failures();
}

#[test]
fn a_renewed_certificate_interrupts_no_connection() {
    let mut mesh = Mesh::start();
    mesh.environment.push(("TULLE_CERTIFICATE_TTL", "3s"));
    let _echo = mesh.server("echo", "/tcp", |_| vec![Step::Echo]);
    let _web = mesh.server("web", "/http", named("web"));
    let client = mesh.client();
    let serial = || {
        let certs: Value = serde_json::from_str(&client.page("admin", "/certs")).unwrap();
        certs["notAfter"].as_u64().unwrap()
    };
    let first = serial();
    let load = Load::start(&client, "web", &["GET"]);
    let mut raw = client.tunnel("echo:80");
    let mut renewals = 0;
    let mut last = first;
    testkit::wait_for("three renewals", SOON, || {
        raw.send("ping").unwrap();
        assert_eq!(raw.read_exact(4, SOON).unwrap(), b"ping");
        let now = serial();
        if now > last {
            (renewals, last) = (renewals + 1, now);
        }
        (renewals >= 3).then_some(())
    });
    load.stop_without_failures();
    assert!(
        last >= first + 3,
        "the first certificate has expired meanwhile"
    );
}
