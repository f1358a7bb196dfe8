use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::caller::{Caller, Peer};
use crate::change::Origin;
use crate::listen::Via;
use crate::testing::{World, puts};

const REVIEWS: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: bookshop}\nspec: {selector: {app: reviews}, ports: [{port: 80}]}\n";

fn addresses() -> Addresses {
    let at: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    Addresses {
        pid: 1,
        version: "0".to_owned(),
        socket: "/nowhere".into(),
        xds: at,
        api: at,
        metrics: at,
        otlp: at,
        insecure_xds: None,
        trust_domain: "mesh.local".to_owned(),
        root_pin: String::new(),
    }
}

fn api(world: &World) -> Router {
    let parts = Parts {
        children: Children::default(),
        state: world.state.clone(),
        registry: world.registry.clone(),
        authority: Arc::clone(&world.authority),
        traces: Arc::default(),
        files: None,
        kubernetes: None,
        addresses: addresses(),
        started: SystemTime::now(),
        own_not_after: Box::new(SystemTime::now),
    };
    router(Api(Arc::new(parts))).fallback(not_found)
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:15080")
        .body(body.into())
        .expect("a request");
    let extensions = request.extensions_mut();
    extensions.insert(Caller::Local { uid: 0 });
    extensions.insert(Via::Socket);
    extensions.insert(Peer::default());
    request
}

async fn send(router: &Router, request: Request) -> (StatusCode, Value) {
    let response = router.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    (
        status,
        serde_json::from_slice(&body).unwrap_or(Value::String(text)),
    )
}

async fn call(router: &Router, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    send(router, request(method, path, body.to_owned())).await
}

#[tokio::test]
async fn objects_are_applied_shown_and_deleted() {
    let world = World::new().await;
    let api = api(&world);
    let (status, body) = call(&api, Method::POST, "/api/v1/apply?dryRun=true", REVIEWS).await;
    assert_eq!(
        (status, &body["applied"][0]["action"]),
        (StatusCode::OK, &json!("created"))
    );
    let path = "/api/v1/resources/services/bookshop/reviews";
    assert_eq!(
        call(&api, Method::GET, path, "").await.0,
        StatusCode::NOT_FOUND
    );

    let (status, body) = call(&api, Method::POST, "/api/v1/apply", REVIEWS).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        body["applied"],
        json!([{"kind": "Service", "namespace": "bookshop", "name": "reviews", "action": "created"}])
    );
    let (status, object) = call(&api, Method::GET, path, "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(object["kind"], "Service");
    assert_eq!(object["metadata"]["generation"], 1);
    assert!(
        object["metadata"]["creationTimestamp"]
            .as_str()
            .expect("set")
            .ends_with('Z')
    );
    assert!(
        object["spec"]["clusterIP"]
            .as_str()
            .expect("set")
            .starts_with("240.240.")
    );
    assert_eq!(object["status"]["origin"]["type"], "api");

    // What is shown can be applied again.
    let (status, body) = call(&api, Method::POST, "/api/v1/apply", &object.to_string()).await;
    assert_eq!(
        (status, &body["applied"][0]["action"]),
        (StatusCode::OK, &json!("unchanged")),
        "{body}"
    );

    let (_, list) = call(
        &api,
        Method::GET,
        "/api/v1/resources/svc?namespace=bookshop",
        "",
    )
    .await;
    assert_eq!(list["items"].as_array().expect("a list").len(), 1);
    let (_, list) = call(
        &api,
        Method::GET,
        "/api/v1/resources/services?namespace=other",
        "",
    )
    .await;
    assert_eq!(list["items"], json!([]));

    assert_eq!(call(&api, Method::DELETE, path, "").await.0, StatusCode::OK);
    let (status, body) = call(&api, Method::DELETE, path, "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        body["error"]["message"]
            .as_str()
            .expect("said")
            .contains("Service bookshop/reviews")
    );

    let (_, audit) = call(&api, Method::GET, "/api/v1/audit", "").await;
    let actions: Vec<_> = audit["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| &e["action"])
        .collect();
    assert_eq!(actions, ["deleted", "created"]);
    assert_eq!(audit["entries"][0]["who"], "uid:0");
}

#[tokio::test]
async fn what_is_wrong_is_listed_and_nothing_is_applied() {
    let world = World::new().await;
    let api = api(&world);
    let text = format!(
        "{REVIEWS}---\n{}",
        REVIEWS
            .replace("name: reviews", "name: b")
            .replace("selector", "selektor")
    );
    let (status, body) = call(&api, Method::POST, "/api/v1/apply", &text).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let error = &body["errors"][0];
    assert_eq!(error["line"], 9, "{body}");
    assert!(
        error["field"].as_str().expect("named").contains("selektor"),
        "{body}"
    );
    assert!(
        error.to_string().contains("selector"),
        "the nearest name: {body}"
    );
    assert!(body["error"]["message"].is_string());
    assert!(
        world
            .state
            .list(config::ObjectKind::Service, None)
            .is_empty()
    );

    let twice = format!("{REVIEWS}---\n{REVIEWS}");
    for (text, want) in [
        ("", "no object"),
        ("a: [", "cannot be read"),
        (twice.as_str(), "twice"),
        ("kind: Nothing\nmetadata: {name: a}", "Nothing"),
    ] {
        let (status, body) = call(&api, Method::POST, "/api/v1/apply", text).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
        assert!(body.to_string().contains(want), "{want}: {body}");
    }
    let (status, body) = send(
        &api,
        request(Method::POST, "/api/v1/apply", vec![0xff, 0xfe]),
    )
    .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.to_string().contains("UTF-8"), "{body}");
}

#[tokio::test]
async fn what_belongs_to_a_file_is_a_conflict_with_the_remedy() {
    let world = World::new().await;
    let api = api(&world);
    let file = Origin::File("/etc/mesh.yaml".into());
    world
        .state
        .apply(puts(REVIEWS, &file))
        .await
        .expect("applied");
    for (method, path, body) in [
        (Method::POST, "/api/v1/apply", REVIEWS),
        (
            Method::DELETE,
            "/api/v1/resources/services/bookshop/reviews",
            "",
        ),
    ] {
        let (status, body) = call(&api, method, path, body).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(
            body["error"]["message"]
                .to_string()
                .contains("/etc/mesh.yaml"),
            "{body}"
        );
        assert!(
            body["error"]["hint"].to_string().contains("edit that file"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn large_bodies_are_refused_by_size() {
    let world = World::new().await;
    let api = api(&world);
    let large = "#".repeat(config::MAX_INPUT_BYTES + 1);
    let (status, body) = call(&api, Method::POST, "/api/v1/apply", &large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
    let fits = format!("{REVIEWS}{}", "#".repeat(10 << 20));
    let (status, body) = call(&api, Method::POST, "/api/v1/apply", &fits).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, _) = call(&api, Method::POST, "/api/v1/tokens", &"x".repeat(BODY + 1)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let world = World::new().await;
    let api = api(&world);
    for (method, path, want) in [
        (Method::GET, "/api/v1/nothing", StatusCode::NOT_FOUND),
        (
            Method::GET,
            "/api/v1/resources/nothing",
            StatusCode::NOT_FOUND,
        ),
        (Method::PUT, "/api/v1/apply", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/api/v1/traces/zz", StatusCode::NOT_FOUND),
        (
            Method::GET,
            "/api/v1/traces?limit=x",
            StatusCode::BAD_REQUEST,
        ),
        (
            Method::GET,
            "/api/v1/resources/services?nonsense=1",
            StatusCode::BAD_REQUEST,
        ),
    ] {
        let (status, body) = call(&api, method, path, "").await;
        assert_eq!(status, want, "{path}");
        assert!(
            body["error"]["message"].is_string() && body["error"]["hint"].is_string(),
            "{path}: {body}"
        );
    }
}

#[tokio::test]
async fn tokens_are_made_for_one_account() {
    let world = World::new().await;
    let api = api(&world);
    let wanted = json!({"namespace": "bookshop", "service_account": "reviews", "ttl_seconds": 60});
    let (status, body) = call(&api, Method::POST, "/api/v1/tokens", &wanted.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let record = world
        .authority
        .check_token(body["token"].as_str().expect("a token"))
        .await
        .expect("good");
    assert_eq!(
        (record.namespace.as_str(), record.service_account.as_str()),
        ("bookshop", "reviews")
    );
    assert!(record.expires <= crate::state::now() + 60);
    for bad in [
        "",
        "{}",
        r#"{"service_account": "A B"}"#,
        r#"{"service_account": "a", "ttl_seconds": 0}"#,
        r#"{"service_account": "a", "admin": true}"#,
    ] {
        let (status, body) = call(&api, Method::POST, "/api/v1/tokens", bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {body}");
    }
    let (status, pem) = call(&api, Method::GET, "/api/v1/trust", "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(pem.as_str().expect("PEM").contains("BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn who_may_do_what() {
    let world = World::new().await;
    let api = api(&world);
    let loopback: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let elsewhere: SocketAddr = "10.0.0.9:9".parse().expect("an address");
    let workload = Caller::Workload("spiffe://mesh.local/ns/a/sa/b".parse().expect("an id"));
    let local = Caller::Local { uid: 0 };
    let ask = |method: Method, path: &str, via: Via, caller: &Caller, remote: SocketAddr| {
        let mut request = request(method, path, REVIEWS);
        let extensions = request.extensions_mut();
        extensions.insert(via);
        extensions.insert(caller.clone());
        extensions.insert(Peer {
            remote: Some(remote),
            local: None,
        });
        request
    };
    let (get, post) = (Method::GET, Method::POST);
    for (method, path, via, caller, remote, want) in [
        (&get, "/api/v1/status", Via::Plain, &local, loopback, 200),
        (&post, "/api/v1/apply", Via::Plain, &local, loopback, 200),
        (
            &get,
            "/api/v1/status",
            Via::Plain,
            &Caller::Anonymous,
            loopback,
            200,
        ),
        (
            &post,
            "/api/v1/apply",
            Via::Plain,
            &Caller::Anonymous,
            loopback,
            403,
        ),
        (
            &post,
            "/api/v1/tokens",
            Via::Plain,
            &Caller::Anonymous,
            loopback,
            403,
        ),
        (
            &get,
            "/api/v1/status",
            Via::Plain,
            &Caller::Anonymous,
            elsewhere,
            403,
        ),
        (&get, "/api/v1/status", Via::Tls, &workload, elsewhere, 403),
        (&post, "/api/v1/apply", Via::Tls, &workload, elsewhere, 403),
        (
            &post,
            "/api/v1/tokens",
            Via::Tls,
            &Caller::Anonymous,
            elsewhere,
            403,
        ),
        (
            &get,
            "/api/v1/trust",
            Via::Tls,
            &Caller::Anonymous,
            elsewhere,
            200,
        ),
    ] {
        let request = ask(method.clone(), path, via, caller, remote);
        let (status, body) = send(&api, request).await;
        assert_eq!(
            status.as_u16(),
            want,
            "{method} {path} {via:?} {caller:?}: {body}"
        );
    }
    // Nobody said who it is: nothing is allowed but what is public.
    let bare = Request::builder()
        .uri("/api/v1/status")
        .body(Body::empty())
        .expect("a request");
    assert_eq!(send(&api, bare).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn status_and_dashboard_hold_together() {
    let world = World::new().await;
    let api = api(&world);
    world
        .state
        .apply(puts(REVIEWS, &Origin::Api))
        .await
        .expect("applied");
    let (status, body) = call(&api, Method::GET, "/api/v1/status", "").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["services"][0]["name"], "reviews");
    assert_eq!(body["objects"]["Service"], 1);
    for part in [
        "proxies",
        "workloads",
        "routes",
        "files",
        "findings",
        "certificates",
    ] {
        assert!(body[part].is_array(), "{part}: {body}");
    }
    let (status, page) = call(&api, Method::GET, "/", "").await;
    assert_eq!(status, StatusCode::OK);
    let page = page.as_str().expect("a page");
    assert!(page.starts_with("<!doctype html>"));
    assert!(
        !page.contains("https://"),
        "nothing is fetched from elsewhere"
    );
}

#[test]
fn every_route_is_described() {
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    let methods = |value: &Value| -> BTreeSet<String> {
        let fields = value.as_object().expect("a path").keys();
        fields.filter(|k| *k != "parameters").cloned().collect()
    };
    let described: BTreeSet<(String, BTreeSet<String>)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .map(|(path, value)| (path.clone(), methods(value)))
        .collect();
    let served = ROUTES
        .iter()
        .map(|(path, methods)| {
            (
                (*path).to_owned(),
                methods.iter().map(|m| (*m).to_owned()).collect(),
            )
        })
        .collect();
    assert_eq!(described, served);
}

/// The list that the document is compared with is what the router takes.
#[tokio::test]
async fn every_route_that_is_listed_is_served() {
    let world = World::new().await;
    let api = api(&world);
    for (path, methods) in ROUTES {
        let path = path.replace("{kind}", "services").replace(['{', '}'], "");
        for method in *methods {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let (status, body) = call(&api, method.clone(), &path, "").await;
            let absent = body["error"]["message"]
                .to_string()
                .contains("there is nothing at");
            assert!(
                !absent && status != StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}: {body}"
            );
        }
    }
}
