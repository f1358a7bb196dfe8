//! Both state machines against each other, messages delayed and streams cut at random.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::SystemTime;

use model::endpoint::Endpoint;
use model::name::ObjectName;
use model::resource::{Key, Kind, Resource};
use model::service::Service;
use model::workload::{Locality, Tunnel};
use proptest::prelude::*;

use super::covered;
use super::server::{Limits, RequestError, Standing};
use super::store::{Entry, Store};
use super::{client, server};
use crate::codec::Version;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

fn service(n: u8, aliases: &[u8], headless: bool) -> Resource {
    let address = |last: &u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, *last));
    Resource::Service(Service {
        name: ObjectName::new("n", &format!("s{n}")).expect("valid"),
        addresses: aliases.iter().map(address).collect(),
        ports: Vec::new(),
        headless,
        near: false,
    })
}

fn endpoint(of: u8, n: u8, weight: u32) -> Resource {
    Resource::Endpoint(Endpoint {
        service: ObjectName::new("n", &format!("s{of}")).expect("valid"),
        workload: ObjectName::new("n", &format!("w{n}")).expect("valid"),
        addresses: Vec::new(),
        ports: BTreeMap::new(),
        tunnel: Tunnel::None,
        identity: "spiffe://mesh.local/ns/n/sa/w".parse().expect("valid"),
        health: model::endpoint::Health::Healthy,
        weight,
        locality: Locality::default(),
        version: String::new(),
    })
}

/// An entry that no client can read.
fn garbage(key: &Key, seed: u8) -> (Key, Entry) {
    let bytes: Arc<[u8]> = vec![0xff, seed].into();
    let entry = Entry {
        version: Version::of(&bytes),
        bytes,
        aliases: Vec::new(),
    };
    (key.clone(), entry)
}

/// A server, a client, and what is on its way between them.
struct World {
    store: Store,
    bad: BTreeSet<Key>,
    server: server::Session,
    client: client::Session,
    requests: VecDeque<DeltaDiscoveryRequest>,
    responses: VecDeque<(u32, DeltaDiscoveryResponse)>,
    /// How often the server was asked for something.
    asked: u32,
    /// Names and versions that this stream's client refused, and what `asked` was when they were
    /// sent: only when asked for it again may the server send one again.
    refused: BTreeSet<(String, String, u32)>,
    /// What the receiver of the client's updates has.
    receiver: BTreeMap<Key, Arc<Resource>>,
}

fn put(resource: Resource) -> Step {
    Step::Put(Box::new(resource))
}

#[derive(Debug, Clone)]
enum Step {
    Put(Box<Resource>),
    Spoil(Key, u8),
    Remove(Key),
    Subscribe(Kind, String),
    Unsubscribe(Kind, String),
    ClientSends,
    ServerReads,
    ServerSends,
    ClientReads { accepts: bool },
    Cut,
}

impl World {
    fn new() -> Self {
        let mut client = client::Session::new("workload/n/w");
        client.opened();
        Self {
            store: Store::default(),
            bad: BTreeSet::new(),
            server: server::Session::new(Limits::default()),
            client,
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            asked: 0,
            refused: BTreeSet::new(),
            receiver: BTreeMap::new(),
        }
    }

    fn set(&mut self, key: &Key, entry: Option<Entry>) {
        let Some(touched) = self.store.set(key, entry) else {
            return;
        };
        let interested = self
            .server
            .subscriptions()
            .any(|(kind, name)| kind == key.kind && touched.contains(name));
        if interested {
            self.server.changed(key.kind, &key.name);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(resource) => {
                self.bad.remove(&resource.key());
                self.set(&resource.key(), Some(Entry::of(&resource)));
            }
            Step::Spoil(key, seed) => {
                let (key, entry) = garbage(&key, seed);
                self.bad.insert(key.clone());
                self.set(&key, Some(entry));
            }
            Step::Remove(key) => {
                self.bad.remove(&key);
                self.set(&key, None);
            }
            Step::Subscribe(kind, name) => {
                self.client.subscribe(kind, &name);
            }
            Step::Unsubscribe(kind, name) => {
                self.client.unsubscribe(kind, &name);
                self.drop_unwanted();
            }
            Step::ClientSends => {
                self.requests.extend(self.client.poll());
            }
            Step::ServerReads => self.server_reads(),
            Step::ServerSends => {
                let response = self.server.poll(&self.store);
                for resource in response.iter().flat_map(|r| &r.resources) {
                    let version = (resource.name.clone(), resource.version.clone(), self.asked);
                    assert!(!self.refused.contains(&version), "{version:?} again");
                }
                // What was taken back in between may come again.
                for name in response.iter().flat_map(|r| &r.removed_resources) {
                    self.refused.retain(|(refused, ..)| refused != name);
                }
                self.responses.extend(response.map(|r| (self.asked, r)));
            }
            Step::ClientReads { accepts } => self.client_reads(accepts),
            Step::Cut => {
                self.requests.clear();
                self.responses.clear();
                self.refused.clear();
                self.server = server::Session::new(Limits::default());
                self.client.opened();
            }
        }
    }

    fn drop_unwanted(&mut self) {
        for key in self.client.take_dropped() {
            self.receiver.remove(&key);
        }
    }

    fn server_reads(&mut self) {
        let Some(request) = self.requests.pop_front() else {
            return;
        };
        if !request.resource_names_subscribe.is_empty() {
            self.asked += 1;
        }
        self.server
            .request(&request, &self.store, SystemTime::UNIX_EPOCH)
            .expect("a request that our client makes");
    }

    fn client_reads(&mut self, accepts: bool) {
        let Some((asked, response)) = self.responses.pop_front() else {
            return;
        };
        let versions: BTreeMap<_, _> = response
            .resources
            .iter()
            .map(|r| (r.name.clone(), (r.name.clone(), r.version.clone(), asked)))
            .collect();
        let update = self.client.receive(response).expect("one of our kinds");
        if accepts {
            for (name, held) in &update.upserts {
                let key = Key::new(update.kind, Arc::clone(name));
                self.receiver.insert(key, Arc::clone(&held.resource));
            }
            for name in &update.removed {
                self.receiver
                    .remove(&Key::new(update.kind, Arc::clone(name)));
            }
            let refused = update.refused.keys();
            self.refused
                .extend(refused.map(|name| versions[name].clone()));
            self.client.settle(update, Ok(()));
        } else {
            self.refused.extend(versions.into_values());
            self.client.settle(update, Err("no"));
        }
        self.drop_unwanted();
    }

    /// Lets everything arrive.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.step(Step::ClientSends);
            self.step(Step::ServerReads);
            self.step(Step::ServerSends);
            self.step(Step::ClientReads { accepts: true });
            if self.requests.is_empty() && self.responses.is_empty() {
                self.step(Step::ClientSends);
                self.step(Step::ServerSends);
                if self.requests.is_empty() && self.responses.is_empty() {
                    return;
                }
            }
        }
        panic!("the two never come to rest");
    }

    /// What the client should hold: all that it wants and that can be read.
    fn check(&self) {
        for kind in [Kind::Service, Kind::Endpoint] {
            let wanted: BTreeSet<_> = self
                .client
                .wanted()
                .filter(|(k, _)| *k == kind)
                .map(|(_, name)| Arc::clone(name))
                .collect();
            let mut expected = BTreeMap::new();
            let mut unreadable = BTreeSet::new();
            for name in self.store.expand(kind, "*") {
                let entry = self.store.entry(kind, &name).expect("listed");
                if !covered(&wanted, &name, entry.aliases()) {
                    continue;
                }
                let key = Key::new(kind, Arc::clone(&name));
                let standing = self.server.standing(&key, &self.store);
                if self.bad.contains(&key) {
                    assert!(matches!(standing, Standing::Rejected(_)), "{key}");
                    unreadable.insert(name);
                } else {
                    assert_eq!(standing, Standing::Acked, "{key}");
                    expected.insert(name, entry.version.to_string());
                }
            }
            let held: BTreeMap<_, _> = self
                .client
                .held(kind)
                .iter()
                .filter(|(name, _)| !unreadable.contains(*name))
                .map(|(name, held)| (Arc::clone(name), held.version.clone()))
                .collect();
            assert_eq!(held, expected, "held of {kind}, wanted: {wanted:?}");
            for (name, held) in self.client.held(kind) {
                let key = Key::new(kind, Arc::clone(name));
                assert_eq!(self.receiver.get(&key), Some(&held.resource), "{key}");
            }
            for name in &wanted {
                let answered = self.client.answered(kind).contains(name);
                let only_bad = self
                    .store
                    .expand(kind, name)
                    .iter()
                    .any(|n| unreadable.contains(n));
                assert!(answered || only_bad, "{kind} {name} has no answer");
            }
        }
        let held: usize = [Kind::Service, Kind::Endpoint]
            .map(|kind| self.client.held(kind).len())
            .iter()
            .sum();
        assert_eq!(
            self.receiver.len(),
            held,
            "the receiver has more than is held"
        );
    }
}

fn resource() -> impl Strategy<Value = Resource> {
    let aliases = proptest::collection::vec(0..3_u8, 0..3);
    prop_oneof![
        (0..3_u8, aliases, any::<bool>()).prop_map(|(n, a, h)| service(n, &a, h)),
        (0..2_u8, 0..3_u8, 1..4_u32).prop_map(|(of, n, weight)| endpoint(of, n, weight)),
    ]
}

fn subscription() -> impl Strategy<Value = (Kind, String)> {
    prop_oneof![
        (0..3_u8).prop_map(|n| (Kind::Service, format!("n/s{n}"))),
        (0..3_u8).prop_map(|n| (Kind::Service, format!("ip/10.0.0.{n}"))),
        (0..2_u8).prop_map(|n| (Kind::Endpoint, format!("n/s{n}/*"))),
        (0..2_u8, 0..3_u8).prop_map(|(s, w)| (Kind::Endpoint, format!("n/s{s}/n.w{w}"))),
        prop_oneof![Just(Kind::Service), Just(Kind::Endpoint)].prop_map(|k| (k, "*".to_owned())),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => resource().prop_map(put),
        1 => (resource(), any::<u8>()).prop_map(|(r, seed)| Step::Spoil(r.key(), seed)),
        2 => resource().prop_map(|r| Step::Remove(r.key())),
        4 => subscription().prop_map(|(k, n)| Step::Subscribe(k, n)),
        3 => subscription().prop_map(|(k, n)| Step::Unsubscribe(k, n)),
        5 => Just(Step::ClientSends),
        5 => Just(Step::ServerReads),
        5 => Just(Step::ServerSends),
        5 => prop::bool::weighted(0.9).prop_map(|accepts| Step::ClientReads { accepts }),
        1 => Just(Step::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn client_and_server_agree_once_all_has_arrived(
        steps in proptest::collection::vec(step(), 0..120),
        cut in any::<bool>(),
    ) {
        let mut world = World::new();
        let mut refusals = false;
        for step in steps {
            refusals |= matches!(step, Step::ClientReads { accepts: false });
            world.step(step);
        }
        // A receiver that refused a good update gets it again on the next stream.
        if cut || refusals {
            world.step(Step::Cut);
        }
        world.settle();
        world.check();
    }
}

fn settled(steps: impl IntoIterator<Item = Step>) -> World {
    let mut world = World::new();
    for step in steps {
        world.step(step);
    }
    world.settle();
    world.check();
    world
}

fn subscribe(kind: Kind, name: &str) -> Step {
    Step::Subscribe(kind, name.to_owned())
}

#[test]
fn what_does_not_exist_is_answered_once() {
    let mut world = settled([subscribe(Kind::Service, "n/s0")]);
    assert_eq!(world.client.absent(Kind::Service).len(), 1);
    world.settle();
    world.step(put(service(0, &[], false)));
    world.settle();
    assert!(world.client.absent(Kind::Service).is_empty());
    assert_eq!(world.client.held(Kind::Service).len(), 1);
}

#[test]
fn an_empty_collection_and_an_unknown_address_are_answered() {
    let world = settled([
        subscribe(Kind::Endpoint, "n/s0/*"),
        subscribe(Kind::Service, "ip/10.0.0.1"),
    ]);
    assert!(world.client.absent(Kind::Endpoint).contains("n/s0/*"));
    assert!(world.client.absent(Kind::Service).contains("ip/10.0.0.1"));
}

#[test]
fn an_alias_moves_from_one_resource_to_another() {
    let mut world = settled([
        put(service(0, &[1], false)),
        subscribe(Kind::Service, "ip/10.0.0.1"),
    ]);
    assert!(world.client.held(Kind::Service).contains_key("n/s0"));
    world.step(put(service(0, &[], false)));
    world.step(put(service(1, &[1], false)));
    world.settle();
    world.check();
    assert!(world.client.held(Kind::Service).contains_key("n/s1"));
}

#[test]
fn after_a_reconnect_only_differences_travel() {
    let mut world = settled([
        put(service(0, &[], false)),
        put(service(1, &[], false)),
        put(service(2, &[], false)),
        subscribe(Kind::Service, "*"),
    ]);
    world.step(Step::Cut);
    world.step(put(service(1, &[], true)));
    world.step(Step::Remove(service(2, &[], false).key()));
    world.step(Step::ClientSends);
    world.step(Step::ServerReads);
    world.step(Step::ServerSends);
    let (_, response) = world.responses.front().expect("a response");
    let names: Vec<_> = response.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["n/s1"]);
    assert_eq!(response.removed_resources, ["n/s2"]);
    world.settle();
    world.check();
}

#[test]
fn one_bad_resource_does_not_hold_up_the_others() {
    let world = settled([
        put(service(0, &[], false)),
        Step::Spoil(service(1, &[], false).key(), 7),
        subscribe(Kind::Service, "*"),
    ]);
    assert!(world.client.held(Kind::Service).contains_key("n/s0"));
    let rejections = world.server.rejections();
    assert_eq!(rejections.len(), 1);
    assert_eq!(&*rejections[0].1, "n/s1");
    assert!(rejections[0].3.contains("protobuf"), "{}", rejections[0].3);
}

#[test]
fn a_stale_nonce_acknowledges_nothing() {
    let mut world = settled([put(service(0, &[], false)), subscribe(Kind::Service, "*")]);
    world.step(put(service(0, &[], true)));
    world.step(Step::ServerSends);
    let request = DeltaDiscoveryRequest {
        type_url: crate::codec::type_url(Kind::Service).to_owned(),
        response_nonce: "1".to_owned(),
        ..Default::default()
    };
    let requested = world
        .server
        .request(&request, &world.store, SystemTime::UNIX_EPOCH)
        .expect("well-formed");
    assert!(!requested.settled);
    let key = service(0, &[], true).key();
    assert_eq!(world.server.standing(&key, &world.store), Standing::Pending);
}

#[test]
fn limits_are_kept() {
    let mut session: server::Session = server::Session::new(Limits {
        subscriptions: 2,
        name_bytes: 8,
        initial_resources: 1,
    });
    let mut ask = |names: &[&str], url: &str| {
        let request = DeltaDiscoveryRequest {
            type_url: url.to_owned(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        session.request(&request, &Store::default(), SystemTime::UNIX_EPOCH)
    };
    let url = crate::codec::type_url(Kind::Service);
    assert!(matches!(
        ask(&["123456789"], url),
        Err(RequestError::Name(9, 8))
    ));
    assert!(matches!(ask(&[""], url), Err(RequestError::Name(0, 8))));
    assert!(matches!(
        ask(&[], "nonsense"),
        Err(RequestError::UnknownType(..))
    ));
    assert!(ask(&["a", "b"], url).is_ok());
    assert!(matches!(ask(&["c"], url), Err(RequestError::TooMany(2, _))));
}
