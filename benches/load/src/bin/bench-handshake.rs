//! Full TLS 1.3 handshakes, each on a connection of its own with one GET; nothing is resumed. Prints
//! one line of JSON.
//!
//! `--addr ADDR --ca FILE --name app.local --secs 5 --conns 16 --kx mlkem|x25519`
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bench::Arguments;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn main() {
    let arguments = Arguments::of_process();
    let address = arguments.text("addr").expect("--addr ADDR");
    let name = arguments.text("name").unwrap_or("app.local");
    let name = ServerName::try_from(name.to_owned()).expect("--name NAME");
    let config = config(
        arguments.text("ca").expect("--ca FILE"),
        arguments.text("kx").unwrap_or("mlkem"),
    );
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(arguments.number("secs", 5.0));
    let counts: Vec<(u64, u64)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.number("conns", 16))
            .map(|_| {
                let (config, name) = (&config, &name);
                scope.spawn(move || {
                    let (mut done, mut failed) = (0, 0);
                    while Instant::now() < end {
                        match handshake(address, config, name) {
                            Some(()) => done += 1,
                            None => failed += 1,
                        }
                    }
                    (done, failed)
                })
            })
            .collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|counts| counts.expect("no panic")).collect()
    });
    let done: u64 = counts.iter().map(|(done, _)| done).sum();
    let failed: u64 = counts.iter().map(|(_, failed)| failed).sum();
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    let line = format!("{{\"ok\":{done},\"errors\":{failed},\"per_s\":{rate:.1}}}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
}

fn config(ca: &str, group: &str) -> Arc<ClientConfig> {
    let group = match group {
        "x25519" => aws_lc_rs::kx_group::X25519,
        _ => aws_lc_rs::kx_group::X25519MLKEM768,
    };
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![group],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca).expect("certificates in --ca") {
        roots.add(root.expect("a certificate")).expect("a root");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn handshake(address: &str, config: &Arc<ClientConfig>, name: &ServerName<'static>) -> Option<()> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let connection = ClientConnection::new(Arc::clone(config), name.clone()).ok()?;
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(b"GET / HTTP/1.1\r\nhost: app.local\r\nconnection: close\r\n\r\n")
        .ok()?;
    let mut bytes = [0; 4096];
    let count = tls.read(&mut bytes).ok()?;
    tls.conn.send_close_notify();
    let _ = tls.flush();
    bytes[..count].starts_with(b"HTTP/1.1 200").then_some(())
}
