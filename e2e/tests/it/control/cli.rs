//! The commands: what they print, on which stream, and how they exit.

use super::*;

#[test]
fn resources_are_applied_shown_and_deleted() {
    let plane = Plane::start("cli");
    let applied = plane.apply("shop.yaml", SHOP);
    assert_eq!(applied.stderr, "");
    assert_eq!(
        applied.success(),
        "Service shop/reviews created\nHTTPRoute shop/reviews created\n"
    );
    let again = plane.apply("shop.yaml", SHOP).success();
    has(&again, &["Service shop/reviews unchanged"]);

    let table = plane.cli(&["get", "svc", "-n", "shop"]).success();
    has(
        &table,
        &["NAME", "CLUSTER-IP", "reviews", "80/http", "app=reviews"],
    );
    let all = plane.cli(&["get", "all", "-A"]);
    has(&all.stderr, &["services", "httproutes"]);
    let object = plane.json(&["get", "service", "reviews", "-n", "shop"]);
    assert_eq!(object["metadata"]["generation"], 1);
    assert_eq!(object["spec"]["ports"][0]["targetPort"], 9080);
    assert!(
        object["spec"]["clusterIP"]
            .as_str()
            .is_some_and(|ip| !ip.is_empty())
    );
    let list = plane.json(&["get", "services", "-A"]);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));

    // What is shown can be applied again, as it is.
    let yaml = plane.cli(&["get", "httproute", "reviews", "-n", "shop", "-o", "yaml"]);
    has(
        &yaml.stdout,
        &["kind: HTTPRoute", "type: Accepted", "generation: 1"],
    );
    let round = plane.apply("round.yaml", &yaml.success()).success();
    assert_eq!(round, "HTTPRoute shop/reviews unchanged\n");

    let page = plane
        .cli(&["describe", "httproute", "reviews", "-n", "shop"])
        .success();
    has(
        &page,
        &[
            "Kind:        HTTPRoute",
            "Conditions:",
            "ResolvedRefs   True",
            "NotRequested",
        ],
    );
    let status = plane.cli(&["status"]);
    has(&status.stdout, &["trust domain mesh.local"]);
    assert_eq!(plane.json(&["status"])["objects"]["Service"], 1);

    let gone = plane.cli(&["delete", "httproute", "reviews", "-n", "shop"]);
    assert_eq!(gone.success(), "HTTPRoute reviews deleted\n");
    let none = plane.cli(&["get", "httproutes", "-n", "shop"]);
    assert_eq!((none.code(), none.stdout.as_str()), (0, ""));
    has(&none.stderr, &["no httproutes in namespace \"shop\""]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let plane = Plane::start("dry");
    plane.dir.write("shop.yaml", SHOP);
    let dry = plane
        .cli(&["apply", "-f", "shop.yaml", "--dry-run"])
        .success();
    has(&dry, &["Service shop/reviews created (dry run)"]);
    assert_eq!(
        plane
            .cli(&["get", "service", "reviews", "-n", "shop"])
            .code(),
        1
    );
}

#[test]
fn what_does_not_exist_is_the_answer_no() {
    let plane = Plane::start("no");
    for arguments in [
        &["get", "service", "nobody"][..],
        &["describe", "service", "nobody"],
        &["delete", "service", "nobody"],
        &["cert", "of", "nobody"],
    ] {
        let run = plane.cli(arguments);
        assert_eq!(
            (run.code(), run.stdout.as_str()),
            (1, ""),
            "{arguments:?}: {}",
            run.stderr
        );
        has(&run.stderr, &["default/nobody does not exist", "tulle get"]);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

#[test]
fn wrong_use_is_said_in_one_line_with_the_remedy() {
    let plane = Plane::start("usage");
    plane.dir.write("text.pem", "no certificate");
    for (arguments, parts) in [
        (
            &["get", "servces"][..],
            &["no kind \"servces\"", "did you mean \"services\""][..],
        ),
        (
            &["apply", "-f", "nowhere.yaml"],
            &["nowhere.yaml: cannot be read"],
        ),
        (
            &["token", "create", "-s", "No Name"],
            &["service_account", "lower-case letters"],
        ),
        (
            &["token", "create", "-s", "a", "--ttl", "90d"],
            &["ttl_seconds", "2592000"],
        ),
        (
            &["cert", "show", "text.pem"],
            &["text.pem: no certificate found"],
        ),
        (
            &["status", "--control", "nonsense"],
            &["expected HOST:PORT"],
        ),
        (
            &["control", "-f", "nowhere"],
            &["nowhere: no such file or directory"],
        ),
        (
            &["control", "--store", "mysql:x"],
            &["expected sqlite:PATH"],
        ),
        (
            &["control", "--trust-domain", "No Domain"],
            &["--trust-domain", "mesh.local"],
        ),
    ] {
        let run = plane.cli(arguments);
        assert_eq!(
            (run.code(), run.stdout.as_str()),
            (2, ""),
            "{arguments:?}: {}",
            run.stderr
        );
        has(&run.stderr, parts);
        assert_eq!(run.stderr.trim_end().lines().count(), 1, "{}", run.stderr);
    }
    assert_eq!(plane.cli(&["get"]).code(), 2);
    assert_eq!(plane.cli(&["frobnicate"]).code(), 2);
}

#[test]
fn without_a_control_plane_the_way_to_one_is_told() {
    let dir = DataDir::new("away");
    for arguments in [
        &["status"][..],
        &["get", "services"],
        &["status", "--control", "127.0.0.1:1"],
        &["run", "--service", "a", "--mode", "explicit", "--", "true"],
    ] {
        let mut command = tulle(dir.path());
        let run = Process::run("away", command.args(arguments), dir.path(), SOON);
        assert_eq!(run.code(), 1, "{}", run.stderr);
        has(
            &run.stderr,
            &["no control plane answers at", "tulle control"],
        );
    }
}

#[test]
fn tokens_and_certificates_are_shown() {
    let plane = Plane::start("token");
    let bare = plane
        .cli(&["token", "create", "-s", "reviews", "-n", "shop"])
        .success();
    assert!(
        bare.starts_with("tulle1.") && bare.lines().count() == 1,
        "{bare}"
    );
    let token = plane.json(&[
        "token", "create", "-s", "reviews", "-n", "shop", "--ttl", "5m",
    ]);
    assert_eq!(token["namespace"], "shop");
    assert!(token["expires"].as_str().is_some_and(|t| t.ends_with('Z')));

    let roots = plane.cli(&["cert", "bundle"]).success();
    plane.dir.write("roots.pem", &roots);
    let page = plane.cli(&["cert", "show", "roots.pem"]).success();
    has(&page, &["spiffe://mesh.local", "authority", "fingerprint"]);
    let root = plane.json(&["cert", "show", "roots.pem"]);
    assert_eq!(root[0]["pin"], plane.addresses()["root_pin"]);

    let (_client, _) = plane.client("caller", &[]);
    let own = plane.json(&["cert", "of", "caller", "-n", "shop"]);
    assert_eq!(own[0]["ids"][0], "spiffe://mesh.local/ns/shop/sa/caller");
    assert!(
        own[0]["seconds_left"]
            .as_i64()
            .is_some_and(|s| (3000..=3700).contains(&s))
    );
}
