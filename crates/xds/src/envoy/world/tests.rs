use super::*;
use crate::delta::store::Entry;
use crate::proto::google::rpc;

fn put(store: &mut Store<Kind>, kind: Kind, name: &str, bytes: &str) {
    store.put(kind, &name.into(), Some(Entry::encoded(bytes.into())));
}

fn ask(kind: Kind, names: &[&str], nonce: &str) -> wire::DiscoveryRequest {
    wire::DiscoveryRequest {
        type_url: kind.url().to_owned(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        response_nonce: nonce.to_owned(),
        ..wire::DiscoveryRequest::default()
    }
}

fn refuse(kind: Kind, names: &[&str], nonce: &str) -> wire::DiscoveryRequest {
    wire::DiscoveryRequest {
        error_detail: Some(rpc::Status {
            code: 3,
            message: "no".to_owned(),
            ..rpc::Status::default()
        }),
        ..ask(kind, names, nonce)
    }
}

/// The messages of the next response, and its nonce.
fn next(session: &mut Session, store: &Store<Kind>) -> Option<(Vec<String>, String)> {
    let response = session.poll(Kind::ALL, store)?;
    let text = |any: prost_types::Any| String::from_utf8(any.value).expect("what tests put");
    let texts = response.resources.into_iter().map(text).collect();
    Some((texts, response.nonce))
}

#[test]
fn what_is_refused_is_not_sent_again_until_it_changes() {
    let mut store = Store::default();
    let mut session = Session::default();
    put(&mut store, Kind::Listener, "a", "bad");
    session
        .request(&ask(Kind::Listener, &[], ""))
        .expect("valid");
    let (sent, nonce) = next(&mut session, &store).expect("a first response");
    assert_eq!(sent, ["bad"]);
    for _ in 0..3 {
        let verdict = session.request(&refuse(Kind::Listener, &[], &nonce));
        // Only the first says something new.
        assert!(verdict.is_ok());
        assert_eq!(next(&mut session, &store), None);
    }
    put(&mut store, Kind::Listener, "a", "good");
    assert_eq!(next(&mut session, &store).expect("a change").0, ["good"]);
}

#[test]
fn nothing_is_sent_before_the_last_response_is_answered() {
    let mut store = Store::default();
    let mut session = Session::default();
    session
        .request(&ask(Kind::Cluster, &[], ""))
        .expect("valid");
    let (sent, nonce) = next(&mut session, &store).expect("that there is nothing is an answer");
    assert!(sent.is_empty());
    put(&mut store, Kind::Cluster, "a", "1");
    assert_eq!(next(&mut session, &store), None);
    put(&mut store, Kind::Cluster, "a", "2");
    let stale = session.request(&ask(Kind::Cluster, &[], "77"));
    assert_eq!(stale, Ok(Verdict::None));
    assert_eq!(next(&mut session, &store), None);
    let acked = session.request(&ask(Kind::Cluster, &[], &nonce));
    assert_eq!(acked, Ok(Verdict::Acked));
    assert_eq!(next(&mut session, &store).expect("what came last").0, ["2"]);
}

#[test]
fn only_what_is_named_is_sent_and_names_that_come_are_answered() {
    let mut store = Store::default();
    let mut session = Session::default();
    put(&mut store, Kind::Routes, "a", "1");
    put(&mut store, Kind::Routes, "b", "2");
    session
        .request(&ask(Kind::Routes, &["a", "x"], ""))
        .expect("valid");
    let (sent, nonce) = next(&mut session, &store).expect("one of two is there");
    assert_eq!(sent, ["1"]);
    session
        .request(&ask(Kind::Routes, &["a", "b", "x"], &nonce))
        .expect("valid");
    let (sent, nonce) = next(&mut session, &store).expect("one more");
    assert_eq!(sent, ["1", "2"]);
    session
        .request(&ask(Kind::Routes, &["a"], &nonce))
        .expect("valid");
    // Fewer names: the next response holds less, and is made at once.
    assert_eq!(next(&mut session, &store).expect("one less").0, ["1"]);
}

#[test]
fn endpoints_follow_a_cluster_that_changed() {
    let mut store = Store::default();
    let mut session = Session::default();
    put(&mut store, Kind::Cluster, "a", "1");
    put(&mut store, Kind::Endpoints, "a", "e");
    for kind in [Kind::Cluster, Kind::Endpoints] {
        session
            .request(&ask(
                kind,
                if kind == Kind::Cluster { &[] } else { &["a"] },
                "",
            ))
            .expect("valid");
        let (_, nonce) = next(&mut session, &store).expect("a first response");
        session
            .request(&ask(
                kind,
                if kind == Kind::Cluster { &[] } else { &["a"] },
                &nonce,
            ))
            .expect("valid");
    }
    assert_eq!(next(&mut session, &store), None);
    put(&mut store, Kind::Cluster, "a", "2");
    assert_eq!(next(&mut session, &store).expect("the cluster").0, ["2"]);
    assert_eq!(next(&mut session, &store).expect("its endpoints").0, ["e"]);
    assert_eq!(next(&mut session, &store), None);
}

#[test]
fn a_nonce_of_an_earlier_stream_is_a_first_request() {
    let mut store = Store::default();
    let mut session = Session::default();
    put(&mut store, Kind::Cluster, "a", "1");
    session
        .request(&ask(Kind::Cluster, &[], "9"))
        .expect("valid");
    assert_eq!(next(&mut session, &store).expect("all of it").0, ["1"]);
}

#[test]
fn limits_are_kept() {
    let mut session = Session::default();
    let long = "x".repeat(2000);
    let asked = session.request(&ask(Kind::Routes, &[&long], ""));
    assert!(matches!(asked, Err(RequestError::Name(2000, _))));
    let mut unknown = ask(Kind::Routes, &[], "");
    unknown.type_url = "type.googleapis.com/tulle.v1.Route".to_owned();
    let asked = session.request(&unknown);
    assert!(matches!(asked, Err(RequestError::UnknownType(..))));
}
