//! What users may write: everything wrong is told with file, line and field, and nothing of it is
//! applied.

use std::fmt::Write as _;

use super::*;

/// Applies a file that must be refused as a whole; gives what was said.
#[track_caller]
fn refused(plane: &Plane, text: impl AsRef<[u8]>, parts: &[&str]) {
    plane.dir.write("bad.yaml", text);
    let run = plane.cli(&["apply", "-f", "bad.yaml"]);
    assert_eq!((run.code(), run.stdout.as_str()), (2, ""), "{}", run.stderr);
    has(&run.stderr, parts);
    // Of a file with 10 MB on one line, not all of it is repeated.
    assert!(
        run.stderr.len() < 4000,
        "{} bytes of message",
        run.stderr.len()
    );
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {ports: [{port: 80}]}\n";

#[test]
fn what_cannot_be_read_is_refused_by_file_line_and_field() {
    let plane = Plane::start("input");
    refused(
        &plane,
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  selectr: {app: a}\n",
        &[
            "bad.yaml:5:3: Service default/a: spec.selectr",
            "did you mean \"selector\"?",
        ],
    );
    refused(
        &plane,
        SERVICE.replace("Service", "Servce"),
        &["bad.yaml:2", "\"Servce\"", "did you mean \"Service\"?"],
    );
    refused(
        &plane,
        SERVICE.replace("80", "http"),
        &["bad.yaml:4", "spec.ports[0].port"],
    );
    refused(
        &plane,
        SERVICE.replace("80", "99999"),
        &["bad.yaml:4", "spec.ports[0].port"],
    );
    refused(
        &plane,
        SERVICE.replace("[{port: 80}]", "7"),
        &["bad.yaml:4", "spec.ports"],
    );
    refused(
        &plane,
        SERVICE.replace("name: a", "name: A_b"),
        &["metadata.name"],
    );
    refused(&plane, "a: [1\nb: }", &["bad.yaml:", "cannot be read"]);
    refused(&plane, "just text\n", &["bad.yaml:1"]);
    refused(&plane, "# nothing\n---\n", &["bad.yaml: no object in it"]);
    refused(&plane, [b'a', 0xff, 0xfe, 0], &["bad.yaml: cannot be read"]);
    refused(
        &plane,
        format!("{SERVICE}---\n{SERVICE}"),
        &["bad.yaml:", "Service shop/a: is there twice", "bad.yaml:1"],
    );
    // One bad object: nothing of the set is applied.
    refused(
        &plane,
        format!("{SERVICE}---\nkind: Nothing\n"),
        &["Nothing"],
    );
    assert_eq!(plane.cli(&["get", "service", "a", "-n", "shop"]).code(), 1);
}

#[test]
fn trees_without_end_are_refused_quickly() {
    let mut plane = Plane::start("bomb");
    let before = rss(plane.process.pid());
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    refused(
        &plane,
        SERVICE.replace("[{port: 80}]", &deep),
        &["bad.yaml:4", "cannot be read"],
    );
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in "abcdefghijkl".chars().zip("bcdefghijklm".chars()) {
        let nine = vec![format!("*{from}"); 9].join(",");
        writeln!(bomb, "{to}: &{to} [{nine}]").expect("memory");
    }
    refused(&plane, &bomb, &["bad.yaml:", "too large or too complex"]);
    refused(&plane, "#".repeat(17 << 20), &["bad.yaml", "16 MiB"]);

    // The commands check first; who does not use them is refused by the API just so.
    for (body, status) in [
        (deep.as_str(), 400),
        (&bomb, 400),
        (&"#".repeat(17 << 20), 413),
    ] {
        let mut raw = Raw::connect(plane.address("api")).expect("the API listens");
        let head = format!(
            "POST /api/v1/apply HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        raw.send(head).expect("taken");
        // It may answer before it has read all.
        let _ = raw.send(body);
        let answer = raw.response(SOON).expect("an answer");
        assert_eq!(answer.status, status, "{answer:?}");
        has(&answer.text(), &["\"message\""]);
    }
    assert!(plane.process.is_running());
    let after = rss(plane.process.pid());
    assert!(
        after < before + 200_000,
        "{before} kB of memory became {after} kB"
    );
}

#[test]
fn ten_megabytes_are_taken_or_refused_as_a_whole() {
    let plane = Plane::start("large");
    let note = "n".repeat(10_000);
    let mut large = String::new();
    for n in 0..1000 {
        write!(
            large,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: big, annotations: {{note: {note}}}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        ).expect("memory");
    }
    refused(
        &plane,
        format!("{large}---\n{}", SERVICE.replace("ports", "prots")),
        &["bad.yaml:5005", "spec.prots", "did you mean \"ports\"?"],
    );
    assert_eq!(plane.status()["objects"]["Service"], 0);
    let taken = plane.apply("large.yaml", &large).success();
    assert_eq!(taken.lines().count(), 1000);
    assert_eq!(plane.status()["objects"]["Service"], 1000);
}

#[test]
fn what_leads_nowhere_is_seen_in_conditions_and_warned_of() {
    let plane = Plane::start("dangling");
    let run = plane.apply(
        "dangling.yaml",
        &SHOP.replace(
            "backendRefs: [{name: reviews",
            "backendRefs: [{name: revews",
        ),
    );
    assert_eq!(run.code(), 0);
    has(
        &run.stderr,
        &[
            "warning: dangling.yaml:",
            "backendRefs[0]",
            "\"revews\" does not exist",
            "did you mean \"reviews\"?",
        ],
    );
    let condition = plane
        .condition("httproutes", "shop/reviews", "ResolvedRefs")
        .expect("one");
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&"False".into(), &"BackendNotFound".into())
    );
    has(
        &plane.cli(&["get", "httproute", "-n", "shop"]).success(),
        &["False"],
    );
    has(&plane.cli(&["status"]).stdout, &["Look at:", "revews"]);

    // Mended by making what was missing.
    let missing = SHOP
        .split("---")
        .next()
        .expect("a service")
        .replace("name: reviews", "name: revews");
    plane.apply("missing.yaml", &missing).success();
    let condition = plane
        .condition("httproutes", "shop/reviews", "ResolvedRefs")
        .expect("one");
    assert_eq!(condition["status"], "True");
    assert!(!plane.cli(&["status"]).stdout.contains("Look at:"));
}

/// Resident memory in kB.
fn rss(pid: u32) -> u64 {
    garbage::memory(pid)
}
