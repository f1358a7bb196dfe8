//! Browsers of the same host can be made to send requests to loopback: what another site's page
//! asks for is refused (DNS rebinding by the host's name, forged requests by their origin).

use super::*;

/// The status of a request with these headers.
#[track_caller]
fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut raw = Raw::connect(address).expect("it listens");
    let response = raw.request(format!(
        "{method} {path} HTTP/1.1\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
    ));
    (response.status, response.text())
}

const FOREIGN: [&str; 5] = [
    "host: evil.example\r\n",
    "host: 127.0.0.1.evil.example\r\n",
    "host: localhost\r\norigin: http://evil.example\r\n",
    "host: localhost\r\norigin: null\r\n",
    "host: localhost\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\n",
];

#[test]
fn the_api_answers_no_other_site() {
    let plane = Plane::start("browser");
    plane.apply("shop.yaml", SHOP).success();
    let api = plane.address("api");
    for headers in FOREIGN {
        for (method, path) in [
            ("GET", "/api/v1/status"),
            ("GET", "/"),
            ("DELETE", "/api/v1/resources/services/shop/reviews"),
            ("POST", "/api/v1/tokens"),
        ] {
            let (status, text) = ask(api, method, path, headers);
            assert_eq!(status, 403, "{method} {path} with {headers:?}: {text}");
        }
    }
    // An absolute URI counts before the header (RFC 9112 3.2.2).
    assert_eq!(
        ask(
            api,
            "GET",
            "http://evil.example/api/v1/status",
            "host: localhost\r\n"
        )
        .0,
        403
    );
    assert_eq!(plane.status()["objects"]["Service"], 1);
    let own = format!("host: {api}\r\norigin: http://{api}\r\nsec-fetch-site: same-origin\r\n");
    assert_eq!(ask(api, "GET", "/api/v1/status", &own).0, 200);
    assert_eq!(ask(api, "GET", "/", "host: localhost\r\n").0, 200);
}

#[test]
fn a_proxys_admin_endpoint_answers_no_other_site() {
    let plane = Plane::start("admin");
    let (mut client, _) = plane.client("caller", &[]);
    let port = plane.proxy_port("caller", "admin").expect("an admin port");
    let admin = SocketAddr::from(([127, 0, 0, 1], port));
    for headers in FOREIGN {
        for (method, path) in [
            ("GET", "/config_dump"),
            ("POST", "/drain"),
            ("POST", "/logging?filter=trace"),
        ] {
            let (status, text) = ask(admin, method, path, headers);
            assert_eq!(status, 403, "{method} {path} with {headers:?}: {text}");
        }
    }
    assert_eq!(
        ask(
            admin,
            "GET",
            "http://evil.example/certs",
            "host: localhost\r\n"
        )
        .0,
        403
    );
    assert_eq!(ask(admin, "GET", "/certs", "host: localhost\r\n").0, 200);
    assert_eq!(
        ask(admin, "GET", "/healthz/ready", "host: localhost\r\n").0,
        200,
        "it drains"
    );
    assert_eq!(ask(admin, "GET", "/drain", "host: localhost\r\n").0, 405);
    assert!(client.is_running());
}
