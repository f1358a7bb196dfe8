//! The PROXY header to endpoints (TrafficPolicy `connections.proxyProtocol`): each connection says
//! for whom it was made, and serves nobody else.

use std::net::SocketAddr;

use super::*;
use crate::front::nginx_command;

/// A policy for the Service `s`.
fn policy(version: &str) -> String {
    format!(
        "apiVersion: tulle.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: s}}], connections: {{proxyProtocol: {version}}}}}\n---\n"
    )
}

/// A Gateway before `endpoint`: HTTP on one port, the bytes themselves on another.
fn start(name: &str, endpoint: u16, version: &str) -> (Static, u16, u16) {
    let (http, tcp) = (free_port(), free_port());
    let text = [
        gateway(&[
            format!("{{name: http, port: {http}, protocol: HTTP}}"),
            format!("{{name: tcp, port: {tcp}, protocol: TCP}}"),
        ]),
        service("s", "http", endpoint),
        http_route("r", "", "s"),
        stream_route("TCPRoute", "t", "tcp", "", "s"),
        policy(version),
    ]
    .concat();
    let proxy = Static::start(name, &[("all.yaml", text)], http);
    (proxy, http, tcp)
}

/// A server that reads PROXY headers and answers with the client's address; `None` where it is not
/// installed.
fn server(name: &str, dir: &DataDir) -> Option<(Process, u16)> {
    if Command::new(name).arg("-v").output().is_err() {
        eprintln!("skipped: {name} as an endpoint: it is not installed (apt-get install {name})");
        return None;
    }
    let port = free_port();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = if name == "nginx" {
        let http = format!(
            "server {{ listen {addr} proxy_protocol; location / {{ return 200 \
             \"$proxy_protocol_addr:$proxy_protocol_port to $proxy_protocol_server_addr:$proxy_protocol_server_port\"; }} }}"
        );
        nginx_command(dir, &http)
    } else {
        let text = format!(
            "defaults\n  mode http\n  timeout client 5s\n  timeout connect 5s\n  timeout server 5s\n\
             frontend f\n  bind {addr} accept-proxy\n  http-request return status 200 content-type text/plain \
             lf-string \"%[src]:%[src_port] to %[dst]:%[dst_port]\"\n"
        );
        let mut command = Command::new("haproxy");
        command
            .args(["-db", "-f"])
            .arg(dir.write("haproxy.cfg", text));
        command
    };
    let process = Process::spawn(name, &mut command, dir.path());
    testkit::wait_for(name, SOON, || Raw::connect(addr).ok());
    Some((process, port))
}

#[test]
fn real_servers_learn_who_the_client_is() {
    for name in ["nginx", "haproxy"] {
        let dir = DataDir::new(name);
        let Some((_server, endpoint)) = server(name, &dir) else {
            continue;
        };
        for version in ["V1", "V2"] {
            let (_proxy, http, tcp) = start("announce", endpoint, version);
            for port in [http, tcp] {
                let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
                let client = raw.local_addr().unwrap();
                let want = format!("{client} to 127.0.0.1:{port}");
                for _ in 0..3 {
                    assert_eq!(raw.get("a", "/").text(), want, "{name} {version}");
                }
            }
        }
    }
}

#[test]
fn a_connection_serves_the_client_that_it_was_announced_for_and_nobody_else() {
    let server = Upstream::start(|_| {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let header = Step::ReadUntil(b"PROXY ".to_vec());
        let mut script = vec![header];
        script.extend((0..3).flat_map(|_| [Step::ReadRequest, Step::send(answer)]));
        script.push(Step::ReadToEnd);
        script
    });
    let (_proxy, http, _) = start("apart", server.port(), "V1");
    let mut clients: Vec<Raw> = (0..3)
        .map(|_| Raw::connect(("127.0.0.1", http)).unwrap())
        .collect();
    for _ in 0..2 {
        for client in &mut clients {
            assert_eq!(client.get("a", "/").text(), "ok");
        }
    }
    assert_eq!(server.connections(), 3, "one for each client");
    for (n, client) in clients.iter().enumerate() {
        let address = client.local_addr().unwrap();
        let (ip, port) = (address.ip(), address.port());
        let want = format!("PROXY TCP4 {ip} 127.0.0.1 {port} {http}\r\nGET / HTTP/1.1\r\n");
        let got = server.received_text(n);
        assert!(got.starts_with(&want), "{got:?}");
        assert_eq!(got.matches("PROXY").count(), 1, "{got:?}");
    }
    // They do not outlive their clients.
    drop(clients);
    testkit::wait_for("connections to go with their clients", SOON, || {
        (server.open() == 0).then_some(())
    });
}

#[test]
fn what_a_client_was_announced_as_is_passed_on() {
    let server = Upstream::start(|_| Step::answer("ok"));
    let port = free_port();
    let accept = "apiVersion: tulle.dev/v1alpha1\nkind: ListenerPolicy\nmetadata: {name: l, namespace: shop}\nspec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}], proxyProtocol: {mode: Require}}\n---\n";
    let text = [
        http_listener(port),
        service("s", "http", server.port()),
        http_route("r", "", "s"),
        policy("V1"),
        accept.to_owned(),
    ]
    .concat();
    let _proxy = Static::start("relay", &[("all.yaml", text)], port);
    let mut raw = Raw::connect(("127.0.0.1", port)).unwrap();
    let header = "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n";
    raw.send(header).unwrap();
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    testkit::wait_for("the header", SOON, || {
        server.received_text(0).starts_with(header).then_some(())
    });
}
