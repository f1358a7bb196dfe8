//! The example: a bookshop of small services that know nothing of the mesh.
//!
//! Each service is a process of its own, told by plain environment variables where the others are;
//! the defaults are the mesh's host names. Like any traced application they pass on the headers of
//! trace and request id, and like any HTTP client they honour `HTTP_PROXY` and its kin.
//!
//! ```text
//! load -> storefront -> catalogue (gRPC)
//!                    -> reviews v1, v2, v3 -> ratings (Python)
//!                    -> orders -> payments (gRPC)
//!                              -> stock (TCP, the server speaks first)
//! ```
#![forbid(unsafe_code)]

mod books;
mod client;
mod forward;
mod grpc;
mod http_server;
mod instance;
mod proto;
mod proxy;
mod service;
mod settings;
mod stop;
#[cfg(test)]
mod tests;

use anyhow::bail;

pub use service::load::Summary;
pub use settings::Settings;
pub use stop::Stop;

/// Namespace, Services, routes and policies of the bookshop, in YAML.
pub const MANIFEST: &str = include_str!("manifest.yaml");

/// The ratings service for `python3`, standard library only. `run("ratings")` stands in for it.
pub const RATINGS_PY: &str = include_str!("ratings.py");

/// What is spoken on a service's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// gRPC, without TLS.
    Grpc,
    /// Lines of text over TCP; the server speaks first.
    Tcp,
    /// It only calls others.
    None,
}

impl Protocol {
    /// The word for `tulle run --port NAME:PORT/PROTOCOL`, and the port's name in [`MANIFEST`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::None => "",
        }
    }
}

/// A workload of the bookshop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceInfo {
    /// Label `app`, service account, and the service it belongs to.
    pub name: &'static str,
    /// What [`run`] calls it; differs from `name` only for the versions of the reviews.
    pub workload: &'static str,
    /// Label `version`.
    pub version: &'static str,
    /// Where it listens unless `PORT` says otherwise; 0 if it does not.
    pub port: u16,
    /// What is spoken there; also the port's name.
    pub protocol: Protocol,
    /// The services it calls.
    pub calls: &'static [&'static str],
}

/// All workloads, each after those that it calls.
pub fn services() -> &'static [ServiceInfo] {
    &SERVICES
}

const SERVICES: [ServiceInfo; 10] = [
    service("catalogue", "catalogue", "v1", Protocol::Grpc, &[]),
    service("ratings", "ratings", "v1", Protocol::Http, &[]),
    service("reviews", "reviews-v1", "v1", Protocol::Http, &[]),
    service("reviews", "reviews-v2", "v2", Protocol::Http, &["ratings"]),
    service("reviews", "reviews-v3", "v3", Protocol::Http, &["ratings"]),
    service("payments", "payments", "v1", Protocol::Grpc, &[]),
    service("stock", "stock", "v1", Protocol::Tcp, &[]),
    service(
        "orders",
        "orders",
        "v1",
        Protocol::Http,
        &["payments", "stock"],
    ),
    service(
        "storefront",
        "storefront",
        "v1",
        Protocol::Http,
        &["catalogue", "reviews", "orders"],
    ),
    service("load", "load", "v1", Protocol::None, &["storefront"]),
];

const fn service(
    name: &'static str,
    workload: &'static str,
    version: &'static str,
    protocol: Protocol,
    calls: &'static [&'static str],
) -> ServiceInfo {
    ServiceInfo {
        name,
        workload,
        version,
        port: match protocol {
            Protocol::Http => 9080,
            Protocol::Grpc => 9090,
            Protocol::Tcp => 9070,
            Protocol::None => 0,
        },
        protocol,
        calls,
    }
}

/// Runs a workload of [`services`] until SIGTERM or SIGINT, configured by the environment; `load`
/// also ends after `DURATION` seconds. Requests in flight are finished first.
pub async fn run(workload: &str) -> anyhow::Result<()> {
    let Some(info) = SERVICES.iter().find(|info| info.workload == workload) else {
        let known: Vec<&str> = SERVICES.iter().map(|info| info.workload).collect();
        bail!(
            "the bookshop has no \"{workload}\"; it has {}",
            known.join(", ")
        );
    };
    let settings = Settings::from_env(info, |name| std::env::var(name).ok())?;
    let stop = Stop::on_signal()?;
    if info.protocol == Protocol::None {
        return service::load::run(&settings, stop).await;
    }
    let listener = settings.listen().await?;
    eprintln!(
        "{}: listening on {}",
        instance::name(workload),
        listener.local_addr()?
    );
    serve(workload, settings, listener, stop).await
}

/// Serves a workload on a socket of the caller's until `stop`.
pub async fn serve(
    workload: &str,
    settings: Settings,
    listener: tokio::net::TcpListener,
    stop: Stop,
) -> anyhow::Result<()> {
    match workload {
        "catalogue" => service::catalogue::serve(listener, stop).await,
        "payments" => service::payments::serve(listener, stop).await,
        "stock" => service::stock::serve(listener, stop).await,
        "ratings" => service::ratings::serve(listener, stop).await,
        "reviews-v1" | "reviews-v2" | "reviews-v3" => {
            service::reviews::serve(&workload[8..], settings, listener, stop).await
        }
        "orders" => service::orders::serve(settings, listener, stop).await,
        "storefront" => service::storefront::serve(settings, listener, stop).await,
        _ => bail!("\"{workload}\" serves nothing"),
    }
}
