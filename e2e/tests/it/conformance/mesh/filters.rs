//! Cases of changed headers, of a rule and of a backend, and of rewritten paths.

use super::*;

/// The changes of headers that both header cases make, by the prefix that asks for them.
const CHANGES: [(&str, &str); 5] = [
    (
        "/set",
        "set: [{name: X-Header-Set, value: set-overwrites-values}]",
    ),
    (
        "/add",
        "add: [{name: X-Header-Add, value: add-appends-values}]",
    ),
    ("/remove", "remove: [X-Header-Remove]"),
    (
        "/multiple",
        "set: [{name: X-Header-Set-1, value: header-set-1}, {name: X-Header-Set-2, value: header-set-2}], \
         add: [{name: X-Header-Add-1, value: header-add-1}, {name: X-Header-Add-2, value: header-add-2}, {name: X-Header-Add-3, value: header-add-3}], \
         remove: [X-Header-Remove-1, X-Header-Remove-2]",
    ),
    (
        "/case-insensitivity",
        "set: [{name: X-Header-Set, value: header-set}], add: [{name: X-Header-Add, value: header-add}], remove: [X-Header-Remove]",
    ),
];

/// A rule that rewrites the path of a prefix, with a change of headers or without.
fn rewrite(prefix: &str, path: &str, headers: &str) -> String {
    format!(
        "\n  - matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}]\n    \
         filters: [{{type: URLRewrite, urlRewrite: {{path: {{{path}}}}}}}{headers}]\n    \
         backendRefs: [{{name: echo-v1, port: 80}}]"
    )
}

pub(super) fn objects() -> String {
    let (mut of_rules, mut of_backends) = (Vec::new(), Vec::new());
    for (path, change) in CHANGES {
        let matches = format!("\n  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]");
        let filters = format!(
            "filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{{change}}}}}]"
        );
        of_rules.push(format!(
            "{matches}\n    {filters}\n    backendRefs: [{{name: echo-v1, port: 8080}}]"
        ));
        of_backends.push(format!(
            "{matches}\n    backendRefs: [{{name: echo-v1, port: 8080, {filters}}}]"
        ));
    }
    let (of_rules, of_backends) = (of_rules.concat(), of_backends.concat());
    let headers = ", {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Header-Set, value: set-overwrites-values}], \
                   add: [{name: X-Header-Add, value: header-val-1}, {name: X-Header-Add-Append, value: header-val-2}], remove: [X-Header-Remove]}}";
    let prefix = |to: &str| format!("type: ReplacePrefixMatch, replacePrefixMatch: {to}");
    let full = |to: &str| format!("type: ReplaceFullPath, replaceFullPath: {to}");
    let rewrites = [
        rewrite("/prefix/one", &prefix("/one"), ""),
        rewrite("/strip-prefix", &prefix("/"), ""),
        rewrite("/full/one", &full("/one"), ""),
        rewrite(
            "/full/rewrite-path-and-modify-headers",
            &full("/test"),
            headers,
        ),
        rewrite(
            "/prefix/rewrite-path-and-modify-headers",
            &prefix("/prefix"),
            headers,
        ),
    ];
    [
        case("headers", &of_rules),
        case("backend-headers", &of_backends),
        case("rewrite", &rewrites.concat()),
    ]
    .concat()
}

/// The requests of both header cases.
fn header_asks() -> [Ask; 7] {
    let v1 = |path| get(path).by("v1").seen_at(path);
    let set = || v1("/set").sees("X-Header-Set", "set-overwrites-values");
    let other = |ask: Ask| {
        ask.with("Some-Other-Header", "val")
            .sees("Some-Other-Header", "val")
    };
    [
        other(set()),
        other(set().with("X-Header-Set", "some-other-value")),
        other(v1("/add").sees("X-Header-Add", "add-appends-values")),
        other(v1("/add").with("X-Header-Add", "some-other-value"))
            .sees("X-Header-Add", "some-other-value,add-appends-values"),
        v1("/remove")
            .with("X-Header-Remove", "val")
            .lacks("X-Header-Remove"),
        v1("/multiple")
            .with("X-Header-Set-2", "set-val-2")
            .with("X-Header-Add-2", "add-val-2")
            .with("X-Header-Remove-2", "remove-val-2")
            .with("Another-Header", "another-header-val")
            .sees("X-Header-Set-1", "header-set-1")
            .sees("X-Header-Set-2", "header-set-2")
            .sees("X-Header-Add-1", "header-add-1")
            .sees("X-Header-Add-2", "add-val-2,header-add-2")
            .sees("X-Header-Add-3", "header-add-3")
            .sees("Another-Header", "another-header-val")
            .lacks("X-Header-Remove-1")
            .lacks("X-Header-Remove-2"),
        v1("/case-insensitivity")
            .with("x-header-set", "original-val-set")
            .with("x-header-add", "original-val-add")
            .with("x-header-remove", "original-val-remove")
            .with("Another-Header", "another-header-val")
            .sees("X-Header-Set", "header-set")
            .sees("X-Header-Add", "original-val-add,header-add")
            .sees("Another-Header", "another-header-val")
            .lacks("X-Header-Remove"),
    ]
}

pub(super) fn mesh_http_route_request_header_modifier(mode: Mode) {
    world(mode).check("headers", &header_asks());
}

pub(super) fn mesh_http_route_backend_request_header_modifier(mode: Mode) {
    world(mode).check("backend-headers", &header_asks());
}

pub(super) fn mesh_http_route_rewrite_path(mode: Mode) {
    let v1 = |path, seen| get(path).by("v1").seen_at(seen);
    let changed = |ask: Ask| {
        ask.with("X-Header-Remove", "remove-val")
            .with("X-Header-Add-Append", "append-val-1")
            .with("X-Header-Set", "set-val")
            .sees("X-Header-Add", "header-val-1")
            .sees("X-Header-Add-Append", "append-val-1,header-val-2")
            .sees("X-Header-Set", "set-overwrites-values")
            .lacks("X-Header-Remove")
    };
    world(mode).check(
        "rewrite",
        &[
            v1("/prefix/one/two", "/one/two"),
            v1("/strip-prefix/three", "/three"),
            v1("/strip-prefix", "/"),
            v1("/full/one/two", "/one"),
            changed(v1("/full/rewrite-path-and-modify-headers/test", "/test")),
            changed(v1(
                "/prefix/rewrite-path-and-modify-headers/one",
                "/prefix/one",
            )),
        ],
    );
}
