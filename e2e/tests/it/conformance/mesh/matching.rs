//! Cases of paths, headers and query parameters.

use super::*;

pub(super) fn objects() -> String {
    [
        case(
            "matching",
            "
  - matches: [{path: {type: PathPrefix, value: /}}, {headers: [{name: version, value: one}]}]
    backendRefs: [{name: echo-v1, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /v2}}, {headers: [{name: version, value: two}]}]
    backendRefs: [{name: echo-v2, port: 8080}]",
        ),
        case(
            "named-rule",
            "
  - name: named
    matches: [{path: {type: PathPrefix, value: /named}}]
    backendRefs: [{name: echo-v1, port: 8080}]
  - matches: [{path: {type: PathPrefix, value: /unnamed}}]
    backendRefs: [{name: echo-v2, port: 8080}]",
        ),
        case(
            "query",
            "
  - matches: [{queryParams: [{name: animal, value: whale}]}]
    backendRefs: [{name: echo-v1, port: 8080}]
  - matches: [{queryParams: [{name: animal, value: dolphin}]}]
    backendRefs: [{name: echo-v2, port: 8080}]
  - matches: [{path: {value: /path1}, queryParams: [{name: animal, value: whale}]}]
    backendRefs: [{name: echo-v1, port: 8080}]
  - matches: [{headers: [{name: version, value: one}], queryParams: [{name: animal, value: whale}]}]
    backendRefs: [{name: echo-v2, port: 8080}]
  - matches:
    - {path: {value: /path3}, queryParams: [{name: animal, value: shark}]}
    - {path: {value: /path4}, headers: [{name: version, value: three}], queryParams: [{name: animal, value: kraken}]}
    backendRefs: [{name: echo-v1, port: 8080}]
  - matches: [{path: {value: /path5}}]
    backendRefs: [{name: echo-v1, port: 8080}]
  - matches: [{queryParams: [{name: animal, value: hydra}]}]
    backendRefs: [{name: echo-v2, port: 8080}]",
        ),
    ]
    .concat()
}

pub(super) fn mesh_http_route_matching(mode: Mode) {
    world(mode).check(
        "matching",
        &[
            get("/").by("v1"),
            get("/example").by("v1"),
            get("/").with("Version", "one").by("v1"),
            get("/v2").by("v2"),
            get("/v2/example").by("v2"),
            get("/").with("Version", "two").by("v2"),
            get("/v2/").by("v2"),
            // No prefix by whole elements.
            get("/v2example").by("v1"),
            get("/foo/v2/example").by("v1"),
        ],
    );
}

pub(super) fn mesh_http_route_named_rule(mode: Mode) {
    world(mode).check(
        "named-rule",
        &[
            get("/named").by("v1").seen_at("/named"),
            get("/unnamed").by("v2").seen_at("/unnamed"),
        ],
    );
}

pub(super) fn mesh_http_route_query_param_matching(mode: Mode) {
    world(mode).check(
        "query",
        &[
            get("/?animal=whale").by("v1"),
            get("/?animal=dolphin").by("v2"),
            get("/?animal=whale&otherparam=irrelevant").by("v1"),
            get("/?animal=dolphin&color=yellow").by("v2"),
            get("/?color=blue").status(404),
            get("/?animal=dog").status(404),
            get("/?animal=whaledolphin").status(404),
            get("/").status(404),
            get("/path1?animal=whale").by("v1"),
            get("/?animal=whale").with("version", "one").by("v2"),
            // One of several matches is enough.
            get("/path3?animal=shark").by("v1"),
            get("/path4?animal=kraken")
                .with("version", "three")
                .by("v1"),
            // All conditions of a match must hold.
            get("/?animal=shark").status(404),
            get("/path4?animal=kraken").status(404),
            // The path goes before the query.
            get("/path5?animal=hydra").by("v1"),
        ],
    );
}
