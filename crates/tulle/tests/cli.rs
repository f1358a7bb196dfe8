//! The command line as a user meets it: stdout, stderr and exit code of the real binary.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `tulle` in a directory of its own, where no control plane is.
fn tulle(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tulle"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TULLE_DATA_DIR", dir.join("state"))
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .output()
        .expect("the binary starts")
}

/// What a user sees, with the directory's name taken out.
fn seen(dir: &Path, arguments: &[&str]) -> String {
    let output = tulle(dir, arguments);
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&dir.display().to_string(), "DIR");
    format!(
        "$ tulle {}\nexit code: {}\n--- stdout\n{}--- stderr\n{}",
        arguments.join(" "),
        output.status.code().unwrap_or(-1),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn help_of_every_command_shows_an_example() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for command in [
        "demo",
        "control",
        "run",
        "proxy",
        "apply",
        "get",
        "describe",
        "delete",
        "simulate",
        "diff",
        "analyze",
        "status",
        "token",
        "cert",
        "completions",
        "version",
    ] {
        let text = seen(dir.path(), &[command, "--help"]);
        assert!(text.contains("exit code: 0"), "{text}");
        assert!(text.contains("Example"), "{text}");
        assert!(text.contains(&format!("tulle {command}")), "{text}");
    }
}

#[test]
fn the_overview_lists_the_commands() {
    let dir = tempfile::tempdir().expect("temporary directory");
    insta::assert_snapshot!(seen(dir.path(), &["--help"]));
}

#[test]
fn no_arguments_is_a_usage_error() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let output = tulle(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

#[test]
fn bad_usage_is_named() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    let all = [
        seen(dir, &["frobnicate"]),
        seen(dir, &["get", "servces"]),
        seen(dir, &["get", "services", "--control", "nonsense"]),
        seen(dir, &["run", "--service", "x"]),
        seen(
            dir,
            &["run", "--service", "x", "--port", "web", "--", "true"],
        ),
        seen(
            dir,
            &["run", "--service", "x", "--", "no-such-program-here"],
        ),
        seen(dir, &["token", "create", "-s", "x", "--ttl", "soon"]),
        seen(dir, &["apply", "-f", "missing.yaml"]),
        seen(dir, &["control", "--trust-domain", "Not A Domain"]),
        seen(dir, &["control", "--store", "floppy:a"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn without_a_control_plane_every_command_says_what_to_do() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    std::fs::write(
        dir.join("ok.yaml"),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    )
    .expect("written");
    let all = [
        seen(dir, &["get", "services"]),
        seen(dir, &["status"]),
        seen(dir, &["delete", "service", "x"]),
        seen(dir, &["apply", "-f", "ok.yaml"]),
        seen(dir, &["run", "--service", "x", "--", "true"]),
        seen(dir, &["get", "services", "--control", "127.0.0.1:1"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_broken_file_is_named_with_its_line_and_nothing_is_sent() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{kind: Service, group: \"\", name: reviews}]\n  ruls: []\n";
    std::fs::write(dir.join("route.yaml"), route).expect("written");
    std::fs::write(dir.join("broken.yaml"), "kind: [\n").expect("written");
    std::fs::write(dir.join("empty.yaml"), "# nothing\n").expect("written");
    let all = [
        seen(dir, &["apply", "-f", "route.yaml"]),
        seen(dir, &["apply", "-f", "broken.yaml"]),
        seen(dir, &["apply", "-f", "empty.yaml"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

/// Files for the commands that look ahead.
fn written(dir: &Path, name: &str, path: &str, weight: u32) {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web, namespace: shop}}
spec: {{gatewayClassName: tulle, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: api, namespace: shop}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [shop.example.com]
  rules:
    - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]
      backendRefs: [{{name: api, port: 80}}, {{name: next, port: 80, weight: {weight}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: api, namespace: shop}}
spec: {{selector: {{app: api}}, ports: [{{name: http, port: 80, appProtocol: http}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: next, namespace: shop}}
spec: {{selector: {{app: next}}, ports: [{{name: http, port: 80, appProtocol: http}}]}}
---
apiVersion: tulle.dev/v1alpha1
kind: Workload
metadata: {{name: api-0, namespace: shop, labels: {{app: api}}}}
spec: {{address: 127.0.0.1, ports: [{{name: http, port: 80}}], serviceAccount: api}}
"
    );
    std::fs::write(dir.join(name), text).expect("written");
}

/// Runs a command and looks for its exit code and parts of what it says, in this order.
#[track_caller]
fn says(dir: &Path, arguments: &[&str], code: i32, parts: &[&str]) {
    let text = seen(dir, arguments);
    assert!(text.contains(&format!("exit code: {code}\n")), "{text}");
    let mut rest = text.as_str();
    for part in parts {
        let Some(at) = rest.find(part) else {
            panic!("\"{part}\" is not there, or not in its place:\n{text}");
        };
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_request_is_followed_before_anything_runs() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    written(dir, "a.yaml", "/api", 0);
    let ask = |request: &str, code: i32, parts: &[&str]| {
        says(
            dir,
            &["simulate", "-f", "a.yaml", "--request", request],
            code,
            parts,
        );
    };
    ask(
        "GET http://shop.example.com/api/1",
        0,
        &[
            "request    GET http://shop.example.com/api/1\n",
            "listener   http of Gateway shop/web (HTTP on port 80, hosts *)\n",
            "route      HTTPRoute shop/api, rule 0, match 0 (path /api or below)\n",
            "backend    shop/api:80 (100 %)\n",
            "shop/api-0 at 127.0.0.1:80, usable\n",
            "backend    shop/next:80 (0 %)\n",
            "result     served\n",
        ],
    );
    ask(
        "GET http://shop.example.com/other",
        1,
        &[
            "result     not served: 404 no_route\n",
            "takes GET /other\n",
            "remedy     ",
            "considered, and why not:\n",
            "HTTPRoute shop/api, rule 0 (path /api or below): path \"/other\" is not \"/api\" or below it\n",
        ],
    );
    ask(
        "nonsense",
        2,
        &[
            "--- stderr\nerror: \"nonsense\" is no request",
            "GET https://",
        ],
    );
    let more = |arguments: &[&str], code, parts: &[&str]| {
        let mut all = vec![
            "simulate",
            "-f",
            "a.yaml",
            "-r",
            "GET http://shop.example.com/api",
        ];
        all.extend(arguments);
        says(dir, &all, code, parts);
    };
    more(
        &["-o", "json"],
        0,
        &["\"served\": true", "\"service\": \"shop/api:80\""],
    );
    more(
        &["--gateway", "web"],
        2,
        &["--gateway \"web\": expected NAMESPACE/NAME"],
    );
    more(
        &["--gateway", "shop/none"],
        1,
        &["Gateway shop/none does not exist"],
    );
    more(
        &["--from", "somebody"],
        2,
        &["--from \"somebody\": expected spiffe://"],
    );
}

#[test]
fn a_change_is_told_by_what_it_does_to_requests() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    written(dir, "a.yaml", "/api", 0);
    written(dir, "b.yaml", "/api", 1);
    written(dir, "c.yaml", "/v2", 0);
    let ask = |new: &str, code: i32, parts: &[&str]| {
        says(dir, &["diff", "--old", "a.yaml", "-f", new], code, parts);
    };
    ask(
        "a.yaml",
        0,
        &["--- stdout\n--- stderr\nno object changes\n"],
    );
    ask(
        "b.yaml",
        1,
        &[
            "GET http://shop.example.com/api\n",
            "GET http://shop.example.com/api/*\n",
            "  - goes to shop/api:80\n",
            "  + goes to shop/api:80 (50 %) and shop/next:80 (50 %, answered with 503 no_endpoints)\n",
        ],
    );
    ask(
        "c.yaml",
        1,
        &[
            "GET http://shop.example.com/api\n",
            "  + answered with 404 no_route\n",
        ],
    );
    ask("none.yaml", 2, &["none.yaml: cannot be read"]);
}

#[test]
fn what_can_do_nothing_is_found() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dir = dir.path();
    written(dir, "a.yaml", "/api", 1);
    std::fs::write(
        dir.join("ok.yaml"),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
    )
    .expect("written");
    says(
        dir,
        &["analyze", "-f", "a.yaml"],
        1,
        &[
            "warning: a.yaml:",
            "Service shop/next: spec.selector: nothing serves it, and HTTPRoute shop/api leads there\n",
            "  why: no Workload of the namespace has the labels app=next\n",
            "  remedy: ",
            "--- stderr\n5 objects: 0 errors, 1 warning, 0 to know\n",
        ],
    );
    says(
        dir,
        &["analyze", "-f", "ok.yaml"],
        0,
        &["--- stdout\n--- stderr\n1 object: 0 errors, 0 warnings, 0 to know\n"],
    );
    says(
        dir,
        &["analyze", "-f", "a.yaml", "-o", "json"],
        1,
        &[
            "\"severity\": \"warning\"",
            "\"check\": \"no-endpoints\"",
            "\"field\": \"spec.selector\"",
        ],
    );
    says(dir, &["analyze"], 1, &["no control plane answers"]);
}

#[test]
fn completions_name_the_commands() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let output = tulle(dir.path(), &["completions", "bash"]);
    assert!(output.status.success());
    let script = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(script.contains("describe") && script.contains("_tulle"));
}
