use std::future::Future;

use serde_json::{Value, json};

use super::*;
use crate::state::State;
use crate::testing;

/// A source whose news a test tells, and a state that it feeds.
struct World {
    news: mpsc::Sender<News>,
    source: Kubernetes,
    state: State,
    dir: tempfile::TempDir,
    /// The Secrets that are to be watched by themselves.
    named: watch::Receiver<BTreeSet<ObjectKey>>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let state = testing::state(dir.path()).await;
        Self::over(dir, state)
    }

    fn over(dir: tempfile::TempDir, state: State) -> Self {
        let (news, receiver) = mpsc::channel(100);
        let (_, leader) = watch::channel(false);
        let report = Report::new("https://cluster".to_owned(), leader);
        let (follow, named) = watch::channel(BTreeSet::new());
        let wanted = state.clone();
        let wanted: Wanted = Box::new(move || wanted.distribution().wanted_secrets());
        let secrets = Secrets::new(wanted, follow);
        let source = Kubernetes::over(receiver, state.of_kubernetes(), report, secrets);
        Self {
            news,
            source,
            state,
            dir,
            named,
        }
    }

    async fn tell(&self, news: News) {
        self.news.send(news).await.expect("a source");
    }

    async fn of(&self, kind: ObjectKind, watched: Watched) {
        self.tell(News::Of(kind, watched)).await;
    }

    async fn kinds(&self, kinds: &[ObjectKind]) {
        let kinds = kinds.iter().map(|k| (*k, k.api_version())).collect();
        self.tell(News::Kinds(kinds)).await;
    }

    async fn list(&self, kind: ObjectKind, objects: &[Value]) {
        self.of(kind, Watched::Begins).await;
        for object in objects {
            self.of(kind, is(object)).await;
        }
        self.of(kind, Watched::Complete).await;
    }

    /// The next set, applied.
    async fn follow(&mut self) -> Applied {
        let set = self.source.next().await;
        let result = self.state.apply(set).await;
        self.source.applied(&result);
        result.expect("applied")
    }

    /// Nothing is handed out now.
    async fn quiet(&mut self) {
        let next = tokio::time::timeout(Duration::from_secs(1), self.source.next());
        let set = next.await;
        assert!(set.is_err(), "{set:?}");
    }

    fn names(&self, kind: ObjectKind) -> Vec<String> {
        let all = self.state.list(kind, None);
        all.iter()
            .map(|entry| entry.object.key.name.to_string())
            .collect()
    }
}

fn is(object: &Value) -> Watched {
    Watched::Is(Box::new(
        serde_json::from_value(object.clone()).expect("an object"),
    ))
}

fn service(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-31T12:00:00Z"},
        "spec": {"clusterIP": "10.160.0.9", "ports": [{"port": port}]},
    })
}

fn route(name: &str, generation: u64, field: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop", "generation": generation,
            "creationTimestamp": "2026-01-31T12:00:00Z"},
        "spec": {"parentRefs": [{"name": "web"}], field: ["a.example"]},
    })
}

/// On one thread, so that what was told has been taken when something else is waited for.
fn waiting<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn nothing_is_said_until_every_kind_was_listed() {
    waiting(async {
        let mut world = World::new().await;
        world
            .list(ObjectKind::Service, &[service("cart", 80)])
            .await;
        world.quiet().await;
        world
            .kinds(&[ObjectKind::Service, ObjectKind::HttpRoute])
            .await;
        world
            .list(ObjectKind::Service, &[service("cart", 80)])
            .await;
        world.quiet().await;
        assert!(!world.source.report().is_synced());
        world
            .list(ObjectKind::HttpRoute, &[route("cart", 7, "hostnames")])
            .await;
        let applied = world.follow().await;
        assert_eq!(applied.actions.len(), 2);
        assert!(*world.source.synced().borrow());

        let key = ObjectKey::new(ObjectKind::HttpRoute, "shop", "cart");
        let entry = world.state.find(&key).expect("the route");
        assert_eq!(entry.object.metadata.generation, Some(7));
        assert_eq!(entry.object.metadata.created, Some(1_769_860_800));
        assert_eq!(entry.origin, Origin::Kubernetes);
    });
}

#[test]
fn a_kind_that_may_not_be_listed_does_not_hold_up_the_others() {
    waiting(async {
        let mut world = World::new().await;
        world
            .kinds(&[ObjectKind::Service, ObjectKind::Secret])
            .await;
        world
            .list(ObjectKind::Service, &[service("cart", 80)])
            .await;
        let why = "forbidden".to_owned();
        let forbidden = Watched::Failed {
            why,
            forbidden: true,
        };
        world.of(ObjectKind::Secret, forbidden).await;
        assert_eq!(world.follow().await.actions.len(), 1);
    });
}

#[test]
fn an_object_goes_by_its_deletion_and_by_a_whole_list_without_it_only() {
    waiting(async {
        let mut world = World::new().await;
        world.kinds(&[ObjectKind::Service]).await;
        world
            .list(
                ObjectKind::Service,
                &[service("a", 80), service("b", 80), service("c", 80)],
            )
            .await;
        world.follow().await;

        let gone = serde_json::from_value(service("a", 80)).expect("an object");
        world
            .of(ObjectKind::Service, Watched::Deleted(Box::new(gone)))
            .await;
        world.follow().await;
        assert_eq!(world.names(ObjectKind::Service), ["b", "c"]);

        // A list that breaks off says nothing of what it has not named.
        world.of(ObjectKind::Service, Watched::Begins).await;
        world.of(ObjectKind::Service, is(&service("b", 81))).await;
        let why = "reset".to_owned();
        world
            .of(
                ObjectKind::Service,
                Watched::Failed {
                    why,
                    forbidden: false,
                },
            )
            .await;
        world.follow().await;
        assert_eq!(world.names(ObjectKind::Service), ["b", "c"]);

        world.list(ObjectKind::Service, &[service("c", 80)]).await;
        world.follow().await;
        assert_eq!(world.names(ObjectKind::Service), ["c"]);
    });
}

#[test]
fn a_kind_is_gone_when_it_was_missed_twice() {
    waiting(async {
        let mut world = World::new().await;
        let both = [ObjectKind::Service, ObjectKind::HttpRoute];
        world.kinds(&both).await;
        world
            .list(ObjectKind::Service, &[service("cart", 80)])
            .await;
        world
            .list(ObjectKind::HttpRoute, &[route("cart", 1, "hostnames")])
            .await;
        world.follow().await;
        world.kinds(&both[..1]).await;
        world.quiet().await;
        world.kinds(&both).await;
        world.kinds(&both[..1]).await;
        world.quiet().await;
        world.kinds(&both[..1]).await;
        world.follow().await;
        assert_eq!(world.names(ObjectKind::HttpRoute), [""; 0]);
        assert_eq!(world.names(ObjectKind::Service), ["cart"]);
    });
}

#[test]
fn a_refused_object_keeps_its_last_good_state_and_is_reported_until_it_is_mended() {
    waiting(async {
        let mut world = World::new().await;
        let kind = ObjectKind::HttpRoute;
        world.kinds(&[kind]).await;
        world.list(kind, &[route("cart", 1, "hostnames")]).await;
        world.follow().await;
        let key = ObjectKey::new(kind, "shop", "cart");
        world.of(kind, is(&route("cart", 2, "hostnmaes"))).await;
        world.quiet().await;
        let generation = |world: &World| {
            let entry = world.state.find(&key).expect("the route");
            entry.object.metadata.generation
        };
        assert_eq!(generation(&world), Some(1));
        let report = world.source.report();
        assert_eq!(report.broken(), 1);
        assert_eq!(report.findings_of(&key)[0].field, "spec.hostnmaes");

        world.of(kind, is(&route("cart", 3, "hostnames"))).await;
        world.follow().await;
        assert_eq!(generation(&world), Some(3));
        assert_eq!(report.broken(), 0);
    });
}

#[test]
fn after_a_restart_what_is_known_stays_until_the_api_server_says_otherwise() {
    waiting(async {
        let mut world = World::new().await;
        world.kinds(&[ObjectKind::Service]).await;
        world
            .list(ObjectKind::Service, &[service("a", 80), service("b", 80)])
            .await;
        world.follow().await;

        let World { state, dir, .. } = world;
        let mut world = World::over(dir, state);
        world
            .tell(News::Unknown("connection refused".to_owned()))
            .await;
        world.quiet().await;
        assert_eq!(world.names(ObjectKind::Service), ["a", "b"]);
        assert!(
            world
                .source
                .report()
                .missing()
                .contains("connection refused")
        );
        world.kinds(&[ObjectKind::Service]).await;
        world.list(ObjectKind::Service, &[service("b", 80)]).await;
        world.follow().await;
        assert_eq!(world.names(ObjectKind::Service), ["b"]);
    });
}

fn secret(name: &str, kind: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-01-31T12:00:00Z"},
        "data": {"tls.crt": "YQ==", "tls.key": "Yg=="},
    })
}

fn gateway(certificate: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "shop", "generation": 1,
            "creationTimestamp": "2026-01-31T12:00:00Z"},
        "spec": {"gatewayClassName": "tulle", "listeners": [{
            "name": "https", "port": 443, "protocol": "HTTPS",
            "tls": {"certificateRefs": [{"name": certificate}]},
        }]},
    })
}

#[test]
fn a_secret_of_any_type_is_followed_by_itself_while_something_names_it() {
    waiting(async {
        let mut world = World::new().await;
        let kind = ObjectKind::Secret;
        world.kinds(&[kind, ObjectKind::Gateway]).await;
        world
            .list(kind, &[secret("other", "kubernetes.io/tls")])
            .await;
        world.list(ObjectKind::Gateway, &[gateway("own")]).await;
        world.follow().await;
        let own = ObjectKey::new(kind, "shop", "own");
        assert_eq!(*world.named.borrow(), BTreeSet::from([own.clone()]));
        assert!(!*world.source.synced().borrow(), "it may be there");

        let of_own = |watched| News::OfSecret(own.clone(), watched);
        world.tell(of_own(Watched::Begins)).await;
        world.tell(of_own(is(&secret("own", "Opaque")))).await;
        world.tell(of_own(Watched::Complete)).await;
        world.follow().await;
        assert_eq!(world.names(kind), ["other", "own"]);
        assert!(*world.source.synced().borrow());
        // A list of the other types says nothing of it.
        world.list(kind, &[]).await;
        world.follow().await;
        assert_eq!(world.names(kind), ["own"]);

        // One from before a restart stays until it is known whether it is there.
        let World { state, dir, .. } = world;
        let mut world = World::over(dir, state);
        world.kinds(&[kind, ObjectKind::Gateway]).await;
        world.list(kind, &[]).await;
        world.list(ObjectKind::Gateway, &[gateway("own")]).await;
        world.quiet().await;
        assert_eq!(world.names(kind), ["own"]);
        world.tell(of_own(Watched::Begins)).await;
        world.tell(of_own(is(&secret("own", "Opaque")))).await;
        world.tell(of_own(Watched::Complete)).await;
        world.follow().await;
        assert_eq!(world.names(kind), ["own"]);

        // Nobody names it any more: it is forgotten.
        world.of(ObjectKind::Gateway, is(&gateway("other"))).await;
        world.follow().await;
        world.follow().await;
        assert_eq!(world.names(kind), [""; 0]);
        let other = ObjectKey::new(kind, "shop", "other");
        assert_eq!(*world.named.borrow(), BTreeSet::from([other]));
    });
}

#[test]
fn a_secret_that_changes_its_type_is_the_one_that_was_shown_last() {
    waiting(async {
        let mut world = World::new().await;
        let kind = ObjectKind::Secret;
        world.kinds(&[kind, ObjectKind::Gateway]).await;
        let tls = secret("own", "kubernetes.io/tls");
        world.list(kind, std::slice::from_ref(&tls)).await;
        world.list(ObjectKind::Gateway, &[gateway("own")]).await;
        world.follow().await;
        assert!(world.named.borrow().is_empty(), "one watch shows it");

        let gone = || Box::new(serde_json::from_value(tls.clone()).expect("an object"));
        world.of(kind, Watched::Deleted(gone())).await;
        world.follow().await;
        let own = ObjectKey::new(kind, "shop", "own");
        assert!(world.named.borrow().contains(&own));
        let of_own = |watched| News::OfSecret(own.clone(), watched);
        world.tell(of_own(Watched::Begins)).await;
        world.tell(of_own(is(&secret("own", "Opaque")))).await;
        world.tell(of_own(Watched::Complete)).await;
        // The end of the one before, said late, is not the end of this one.
        world.of(kind, Watched::Deleted(gone())).await;
        world.follow().await;
        assert_eq!(world.names(kind), ["own"]);
        world.tell(of_own(Watched::Deleted(gone()))).await;
        world.follow().await;
        assert_eq!(world.names(kind), [""; 0]);
    });
}

#[test]
fn what_belongs_to_kubernetes_is_changed_there() {
    waiting(async {
        let mut world = World::new().await;
        world.kinds(&[ObjectKind::Service]).await;
        world
            .list(ObjectKind::Service, &[service("cart", 80)])
            .await;
        world.follow().await;
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {ports: [{port: 81}]}\n";
        let error = world.state.apply(testing::puts(text, &Origin::Api)).await;
        let message = error.expect_err("refused").to_string();
        assert!(
            message.contains("kubectl edit service cart -n shop"),
            "{message}"
        );
    });
}

#[test]
fn what_somebody_else_has_is_reported_and_the_rest_applied() {
    waiting(async {
        let mut world = World::new().await;
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {ports: [{port: 81}]}\n";
        let applied = world.state.apply(testing::puts(text, &Origin::Api)).await;
        applied.expect("applied");
        world.kinds(&[ObjectKind::Service]).await;
        world
            .list(
                ObjectKind::Service,
                &[service("cart", 80), service("web", 80)],
            )
            .await;
        let applied = world.follow().await;
        assert_eq!(applied.conflicts.len(), 1);
        assert_eq!(world.source.report().broken(), 1);
        assert_eq!(world.names(ObjectKind::Service), ["cart", "web"]);
    });
}
