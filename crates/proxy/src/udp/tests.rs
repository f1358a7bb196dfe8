use std::net::Ipv4Addr;
use std::time::Duration;

use telemetry::metrics::Format;
use tokio::net::UdpSocket;

use super::*;
use crate::outbound::tests::{destination, run};

const PATIENCE: Duration = Duration::from_secs(10);

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer));
    let (n, from) = received.await.expect("a datagram in time").unwrap();
    (buffer[..n].to_vec(), from)
}

fn serve_on_loopback<P>(worker: &Rc<Worker>, pick: P) -> SocketAddr
where
    P: Fn(SocketAddr) -> Result<Target, Failure> + 'static,
{
    let socket = net::socket::bind_udp("127.0.0.1:0".parse().unwrap(), None).unwrap();
    let address = socket.local_addr().unwrap();
    tokio::task::spawn_local(serve(Rc::clone(worker), socket, pick));
    address
}

fn metric(worker: &Worker, name: &str, destination: &str) -> Option<f64> {
    let page = worker.shared.registry.render(Format::Text);
    let label = format!("destination=\"{destination}\"");
    let line = page
        .lines()
        .find(|l| l.starts_with(name) && l.contains(&label))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn datagrams_reach_an_endpoint_and_are_counted_while_the_session_lasts() {
    run(async |worker| {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let destination = destination(&[port], None, Vec::new());
        let host = destination.host.to_string();
        let (picking, to) = (Rc::clone(&worker), Arc::clone(&destination));
        let address = serve_on_loopback(&worker, move |_| {
            pick(&picking, &to, 80, Ipv4Addr::LOCALHOST.into())
        });
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for round in 0..3 {
            client.send_to(b"question", address).await.unwrap();
            let (question, from) = receive(&server).await;
            assert_eq!(question, b"question", "round {round}");
            server.send_to(b"answer", from).await.unwrap();
            assert_eq!(receive(&client).await, (b"answer".to_vec(), address));
        }
        let counted = |name| metric(&worker, name, &host);
        assert_eq!(counted("tulle_udp_sessions_opened_total"), Some(1.0));
        assert_eq!(counted("tulle_udp_sessions_closed_total"), Some(0.0));
        assert_eq!(counted("tulle_udp_sent_bytes_total"), Some(24.0));
        assert_eq!(counted("tulle_udp_received_bytes_total"), Some(18.0));
        let view = destination.view();
        let endpoint = &view.endpoints()[0].live;
        assert_eq!(
            endpoint
                .in_flight
                .load(std::sync::atomic::Ordering::Relaxed),
            1
        );
    });
}

#[test]
fn without_an_endpoint_datagrams_are_dropped_and_counted() {
    run(async |worker| {
        let destination = destination(&[], None, Vec::new());
        let (picking, to) = (Rc::clone(&worker), Arc::clone(&destination));
        let address = serve_on_loopback(&worker, move |_| {
            pick(&picking, &to, 80, Ipv4Addr::LOCALHOST.into())
        });
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"question", address).await.unwrap();
        let dropped = async {
            while metric(&worker, "tulle_udp_dropped_datagrams_total", "") != Some(1.0) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, dropped)
            .await
            .expect("counted");
    });
}
