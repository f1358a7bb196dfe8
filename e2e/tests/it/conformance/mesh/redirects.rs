//! Cases of redirects.

use super::*;

/// Rules of a prefix each, with the fields of its redirect.
fn rules(rules: &[(&str, &str)]) -> String {
    let rule = |(path, redirect): &(&str, &str)| {
        format!(
            "\n  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]\n    \
             filters: [{{type: RequestRedirect, requestRedirect: {{{redirect}}}}}]"
        )
    };
    rules.iter().map(rule).collect()
}

pub(super) fn objects() -> String {
    let prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}";
    let full = "path: {type: ReplaceFullPath, replaceFullPath: /replacement-full}";
    let with = |more: &str, path: &str| format!("{more}, {path}");
    [
        case(
            "redirect-status",
            &rules(&[
                ("/redirect", "statusCode: 303"),
                ("/temporary", "statusCode: 307"),
                ("/permanent", "statusCode: 308"),
            ]),
        ),
        case(
            "redirect-host",
            &rules(&[
                ("/hostname-redirect", "hostname: example.org"),
                ("/host-and-status", "statusCode: 301, hostname: example.org"),
            ]),
        ),
        case(
            "redirect-path",
            &rules(&[
                ("/original-prefix", prefix),
                ("/full", full),
                ("/path-and-host", &with("hostname: example.org", prefix)),
                ("/path-and-status", &with("statusCode: 301", prefix)),
                ("/full-path-and-host", &with("hostname: example.org", full)),
                ("/full-path-and-status", &with("statusCode: 301", full)),
            ]),
        ),
        case(
            "redirect-port",
            &rules(&[
                ("/port", "port: 8083"),
                ("/port-and-host", "port: 8083, hostname: example.org"),
                ("/port-and-status", "port: 8083, statusCode: 301"),
                (
                    "/port-and-host-and-status",
                    "port: 8083, statusCode: 302, hostname: example.org",
                ),
            ]),
        ),
        case(
            "redirect-scheme",
            &rules(&[
                ("/scheme", "scheme: https"),
                ("/scheme-and-host", "scheme: https, hostname: example.org"),
                ("/scheme-and-status", "scheme: https, statusCode: 301"),
                (
                    "/scheme-and-host-and-status",
                    "scheme: https, statusCode: 302, hostname: example.org",
                ),
            ]),
        ),
    ]
    .concat()
}

pub(super) fn mesh_http_route_303_redirect(mode: Mode) {
    let see = get("/redirect").redirect(303, "http://redirect-status/redirect");
    world(mode).check("redirect-status", &[see]);
}

pub(super) fn mesh_http_route_307_redirect(mode: Mode) {
    let see = get("/temporary").redirect(307, "http://redirect-status/temporary");
    world(mode).check("redirect-status", &[see]);
}

pub(super) fn mesh_http_route_308_redirect(mode: Mode) {
    let see = get("/permanent").redirect(308, "http://redirect-status/permanent");
    world(mode).check("redirect-status", &[see]);
}

pub(super) fn mesh_http_route_redirect_host_and_status(mode: Mode) {
    world(mode).check(
        "redirect-host",
        &[
            get("/hostname-redirect").redirect(302, "http://example.org/hostname-redirect"),
            get("/host-and-status").redirect(301, "http://example.org/host-and-status"),
        ],
    );
}

pub(super) fn mesh_http_route_redirect_path(mode: Mode) {
    world(mode).check(
        "redirect-path",
        &[
            get("/original-prefix/lemon")
                .redirect(302, "http://redirect-path/replacement-prefix/lemon"),
            get("/full/path/original").redirect(302, "http://redirect-path/replacement-full"),
            get("/path-and-host").redirect(302, "http://example.org/replacement-prefix"),
            get("/path-and-status").redirect(301, "http://redirect-path/replacement-prefix"),
            get("/full-path-and-host").redirect(302, "http://example.org/replacement-full"),
            get("/full-path-and-status").redirect(301, "http://redirect-path/replacement-full"),
        ],
    );
}

pub(super) fn mesh_http_route_redirect_port(mode: Mode) {
    world(mode).check(
        "redirect-port",
        &[
            get("/port").redirect(302, "http://redirect-port:8083/port"),
            get("/port-and-host").redirect(302, "http://example.org:8083/port-and-host"),
            get("/port-and-status").redirect(301, "http://redirect-port:8083/port-and-status"),
            get("/port-and-host-and-status")
                .redirect(302, "http://example.org:8083/port-and-host-and-status"),
        ],
    );
}

pub(super) fn mesh_http_route_scheme_redirect(mode: Mode) {
    world(mode).check(
        "redirect-scheme",
        &[
            get("/scheme").redirect(302, "https://redirect-scheme/scheme"),
            get("/scheme-and-host").redirect(302, "https://example.org/scheme-and-host"),
            get("/scheme-and-status").redirect(301, "https://redirect-scheme/scheme-and-status"),
            get("/scheme-and-host-and-status")
                .redirect(302, "https://example.org/scheme-and-host-and-status"),
        ],
    );
}
