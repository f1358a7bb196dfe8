//! The streams of `tulle-mux` that a workload's proxy takes: those of peers with a certificate, for
//! ports of this workload, in a form that it knows.

use testkit::certs::Forged;
use testkit::frames::{Connection, Frame, Outcome};
use testkit::upstream::{Step, Upstream};

use super::*;

/// A stream that asks for a connection, and what is sent on it at once.
fn asks(stream: u32, to: &str, form: &str, bytes: &str) -> [Frame; 2] {
    let fields: [(&[u8], &[u8]); 3] = [
        (b":method", b"CONNECT"),
        (b":authority", to.as_bytes()),
        (b"x-tulle-form", form.as_bytes()),
    ];
    [
        Frame::headers(stream, false, &fields),
        Frame::data(stream, true, bytes),
    ]
}

#[test]
fn streams_are_for_this_workload_in_a_known_form() {
    let plane = Plane::start("mux");
    let program = Upstream::start(|_| Step::answer("reviews"));
    let _reviews = plane.serve("reviews", "reviews-0", program.port());
    let (_caller, proxy) = plane.client("caller", &[]);
    wait_through(proxy, "reviews.shop", "reviews");
    let tunnel = plane
        .proxy_port("reviews-0", "tunnel")
        .expect("a tunnel port");
    let own = format!("{}.reviews-0.shop.tulle", program.port());
    let config = Forged::from_pem(&plane.svid("caller")).client_config(&[b"tulle-mux"]);
    let raw = Raw::connect_tls(("127.0.0.1", tunnel), config, &own).expect("taken");
    let mut peer = Connection::open(raw).expect("a connection");
    let before = program.requests();
    let get = "GET / HTTP/1.1\r\nhost: reviews.shop\r\nconnection: close\r\n\r\n";
    let mut ask = |stream, to: &str, form: &str| {
        peer.send(&asks(stream, to, form, get)).expect("taken");
        match peer.outcome(stream, SOON) {
            Outcome::Answered(status, body) => {
                (status, String::from_utf8_lossy(&body).into_owned())
            }
            outcome => panic!("{to} {form}: {outcome:?}"),
        }
    };
    // A form that is none, or that may not stand in a stream.
    for (n, form) in ["", "tulle-h2", "tulle-mux", "h2", "gopher"]
        .iter()
        .enumerate()
    {
        let (status, _) = ask(1 + 2 * n as u32, &own, form);
        assert_eq!(status, Some(400), "{form}");
    }
    // Another workload, or a port that this one does not serve.
    let other = own.replace("reviews-0", "reviews-1");
    for (stream, to, reason) in [
        (21, other.as_str(), "identity_mismatch"),
        (23, "1.reviews-0.shop.tulle", "no_route"),
        (25, "gopher", "bad_request"),
    ] {
        let (status, answer) = ask(stream, to, "tulle-h1");
        assert_eq!(status, Some(200), "{to}");
        assert!(answer.contains(reason), "{to}: {answer}");
    }
    assert_eq!(program.requests(), before, "a refused stream came through");
    let (_, answer) = ask(31, &own, "tulle-h1");
    assert!(
        answer.contains(" 200 ") && answer.ends_with("reviews"),
        "{answer}"
    );
    let (_, answer) = ask(33, &own, "tulle-tcp");
    assert!(
        answer.contains(" 200 ") && answer.contains("reviews"),
        "{answer}"
    );
}
