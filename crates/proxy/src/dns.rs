//! DNS for an intercepted application: names of the mesh are answered here, everything else is
//! passed to the host's own name servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::name::service_of_host;
use net::dns::{Forwarder, Query, QueryType, Transport};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;

use crate::options::MARK;
use crate::state::Lookup;
use crate::worker::Shared;

/// Queries answered at once.
const AT_ONCE: usize = 256;
/// Life of an answer: short, so that a service that moves is found again soon.
const TTL: u32 = 30;
/// For a query over TCP, after the connection is made.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers queries until the task is dropped.
pub(crate) async fn serve(shared: Arc<Shared>, udp: UdpSocket, tcp: Option<TcpListener>) {
    let servers = net::dns::upstream().unwrap_or_else(|error| {
        tracing::warn!(%error, "the host's name servers are not known: only names of the mesh will resolve");
        Vec::new()
    });
    let forwarder = Arc::new(Forwarder {
        servers,
        timeout: Duration::from_secs(2),
        mark: Some(MARK),
    });
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let udp = Arc::new(udp);
    let mut packet = [0; net::dns::MAX_UDP];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut packet) => {
                let Ok((length, from)) = received else { continue };
                // No room: the client asks again, as it does for any lost packet.
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                let (shared, forwarder, udp) = (Arc::clone(&shared), Arc::clone(&forwarder), Arc::clone(&udp));
                let query = packet[..length].to_vec();
                tokio::spawn(async move {
                    if let Some(answer) = answer(&shared, &forwarder, &query, Transport::Udp).await {
                        // A client that is gone needs no answer.
                        drop(udp.send_to(&answer, from).await);
                    }
                    drop(permit);
                });
            }
            accepted = accept(tcp.as_ref()) => {
                let Ok((mut stream, _)) = accepted else { continue };
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                let (shared, forwarder) = (Arc::clone(&shared), Arc::clone(&forwarder));
                tokio::spawn(async move {
                    let exchange = async {
                        while let Ok(Some(query)) = net::dns::read_framed(&mut stream).await {
                            let Some(answer) = answer(&shared, &forwarder, &query, Transport::Tcp).await else { break };
                            if net::dns::write_framed(&mut stream, &answer).await.is_err() {
                                break;
                            }
                        }
                    };
                    // A connection that takes longer is cut off; resolvers open another.
                    drop(tokio::time::timeout(PATIENCE, exchange).await);
                    drop(permit);
                });
            }
        }
    }
}

async fn accept(tcp: Option<&TcpListener>) -> std::io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match tcp {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// The answer to a query; `None` where the bytes are none.
async fn answer(
    shared: &Shared,
    forwarder: &Forwarder,
    bytes: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let query = match Query::parse(bytes, transport) {
        Ok(query) => query,
        Err(error) => return error.reply().map(<[u8]>::to_vec),
    };
    let question = query.question();
    if let Some(name) = service_of_host(&question.name, shared.workload.namespace()) {
        match shared.state.service(&name).await {
            Lookup::Found(destination) => {
                let view = destination.view();
                let all: Vec<IpAddr> = if view.service.addresses.is_empty() {
                    view.endpoints()
                        .iter()
                        .flat_map(|e| e.config.addresses.iter().copied())
                        .collect()
                } else {
                    view.service.addresses.clone()
                };
                let wanted = |a: &IpAddr| match question.kind {
                    QueryType::A => a.is_ipv4(),
                    QueryType::Aaaa => a.is_ipv6(),
                    QueryType::Other(_) => false,
                };
                let addresses: Vec<IpAddr> = all.into_iter().filter(wanted).collect();
                return Some(query.answer(&addresses, TTL));
            }
            // Two labels can be a host of the outside (`example.com`); other forms cannot.
            Lookup::Absent if question.name.trim_end_matches('.').split('.').count() > 2 => {
                return Some(query.nxdomain());
            }
            Lookup::Unknown if question.name.contains(".svc") => return Some(query.servfail()),
            Lookup::Absent | Lookup::Unknown => {}
        }
    }
    match forwarder.ask(bytes).await {
        Ok(answer) => Some(query.relay(answer)),
        Err(error) => {
            tracing::debug!(%error, name = %question.name, "query could not be passed on");
            Some(query.servfail())
        }
    }
}
