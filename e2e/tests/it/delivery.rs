//! New versions, bit by bit: canaries, cohorts that stay, blue and green.

use std::sync::atomic::{AtomicBool, Ordering};

use testkit::upstream::Step;

use crate::mesh::{Mesh, SOON, Server, Workload};
use crate::routing::shop_route;

fn version(mesh: &Mesh, service: &'static str, instance: &'static str) -> Server {
    mesh.instance(service, instance, "/http", &[], move |_| {
        Step::answer(instance)
    })
}

/// Who answers a request with these header fields.
fn ask(client: &Workload, headers: &str) -> String {
    let response = client.request("GET", "shop", "/", headers, "");
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

/// The cookie pair that a new client is given, and who answered.
fn newcomer(client: &Workload) -> (String, String) {
    let response = client.get("shop", "/");
    let set = response.header("set-cookie").unwrap_or_else(|| {
        panic!("a new client gets a cookie: {response:?}");
    });
    let pair = set.split(';').next().expect("a pair");
    (format!("Cookie: {pair}\r\n"), response.text())
}

fn cohorts(blue: u32, green: u32) -> String {
    shop_route(&format!(
        "  - sessionPersistence: {{sessionName: cohort, absoluteTimeout: 720h, cookieConfig: {{lifetimeType: Permanent}}}}
    backendRefs: [{{name: blue, port: 80, weight: {blue}}}, {{name: green, port: 80, weight: {green}}}]
"
    ))
}

#[test]
fn a_cohort_keeps_its_version_whatever_becomes_of_weights_and_workloads() {
    let mesh = Mesh::start();
    let blue_1 = version(&mesh, "blue", "blue-1");
    let _blue_2 = version(&mesh, "blue", "blue-2");
    let _green = version(&mesh, "green", "green-1");
    mesh.apply(&cohorts(50, 50));
    let client = mesh.client();
    client.until("the route", "shop", "/", |r| {
        r.status == 200 && r.header("set-cookie").is_some()
    });
    let find = |name: &str| {
        testkit::wait_for("a client of this workload", SOON, || {
            let (cookie, who) = newcomer(&client);
            (who == name).then_some(cookie)
        })
    };
    let (of_blue_1, of_green) = (find("blue-1"), find("green-1"));
    for _ in 0..8 {
        assert_eq!(ask(&client, &of_blue_1), "blue-1");
        assert_eq!(ask(&client, &of_green), "green-1");
    }
    // Nobody new comes to green, and who is there stays.
    mesh.apply(&cohorts(100, 0));
    testkit::wait_for("the new weights", SOON, || {
        (0..12)
            .all(|_| newcomer(&client).1.starts_with("blue"))
            .then_some(())
    });
    assert_eq!(ask(&client, &of_green), "green-1");
    mesh.apply(&cohorts(1, 99));
    testkit::wait_for("the new weights", SOON, || {
        (0..12)
            .any(|_| newcomer(&client).1 == "green-1")
            .then_some(())
    });
    // A workload that goes away leaves its clients to the same version.
    drop(blue_1);
    testkit::wait_for("the other of the same version", SOON, || {
        let response = client.request("GET", "shop", "/", &of_blue_1, "");
        (response.status == 200 && response.text() == "blue-2").then_some(())
    });
    for _ in 0..8 {
        assert_eq!(ask(&client, &of_blue_1), "blue-2");
    }
}

#[test]
fn blue_and_green_are_turned_over_without_a_failed_request() {
    let mesh = Mesh::start();
    let _blue = version(&mesh, "blue", "blue-1");
    let _green = version(&mesh, "green", "green-1");
    let turned = |blue, green| {
        mesh.apply(&shop_route(&format!(
            "  - backendRefs: [{{name: blue, port: 80, weight: {blue}}}, {{name: green, port: 80, weight: {green}}}]\n"
        )));
    };
    turned(1, 0);
    let client = mesh.client();
    client.until("blue", "shop", "/", |r| r.text() == "blue-1");
    let done = AtomicBool::new(false);
    let (asked, seen) = std::thread::scope(|scope| {
        let load: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut asked, mut last, mut turns) = (0, String::new(), 0);
                    while !done.load(Ordering::Relaxed) {
                        let who = ask(&client, "");
                        turns += usize::from(who != last);
                        last = who;
                        asked += 1;
                    }
                    (asked, turns)
                })
            })
            .collect();
        for (blue, green, name) in [(0, 1, "green-1"), (1, 0, "blue-1"), (0, 1, "green-1")] {
            turned(blue, green);
            client.until(name, "shop", "/", |r| r.text() == name);
        }
        done.store(true, Ordering::Relaxed);
        let results = load.into_iter().map(|one| one.join().expect("none failed"));
        results.fold((0, 0), |(a, t), (asked, turns)| (a + asked, t + turns))
    });
    // Each of the four saw one colour at least, and some of them a turn; that none failed is asserted with
    // each request.
    assert!(asked > 20 && seen > 4, "{asked} requests, {seen} turns");
}

#[test]
fn those_who_ask_for_the_canary_get_it_and_else_a_share() {
    let mesh = Mesh::start();
    let _blue = version(&mesh, "blue", "blue-1");
    let _green = version(&mesh, "green", "green-1");
    mesh.apply(&shop_route(
        "  - matches: [{headers: [{name: x-canary, value: \"yes\"}]}]
    backendRefs: [{name: green, port: 80}]
  - backendRefs: [{name: blue, port: 80, weight: 90}, {name: green, port: 80, weight: 10}]
",
    ));
    let client = mesh.client();
    client.until("the route", "shop", "/", |r| r.status == 200);
    for _ in 0..10 {
        assert_eq!(ask(&client, "X-Canary: yes\r\n"), "green-1");
    }
    let canaries = (0..200).filter(|_| ask(&client, "") == "green-1").count();
    // Ten percent: outside these bounds once in a million runs.
    assert!((3..=45).contains(&canaries), "{canaries} of 200");
}
