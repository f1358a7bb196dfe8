use std::sync::Arc;

use config::{ObjectKey, ObjectKind, Spec};

use crate::change::{Action, Also, ApplyError, Change, ChangeSet, OnConflict, Origin};
use crate::store::token::Token;
use crate::testing::{World, puts, state};

const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: bookshop}
spec: {selector: {app: reviews}, ports: [{port: 80}]}
";

fn reviews() -> ObjectKey {
    ObjectKey::new(ObjectKind::Service, "bookshop", "reviews")
}

fn addresses(entry: &super::Entry) -> Vec<std::net::IpAddr> {
    match &entry.object.spec {
        Spec::Service(spec) => spec.addresses(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_service_keeps_its_address_through_changes_and_restarts() {
    let world = World::new().await;
    let applied = world
        .state
        .apply(puts(REVIEWS, &Origin::Api))
        .await
        .expect("applied");
    assert_eq!(applied.actions, [(reviews(), Action::Created)]);
    let first = world.state.find(&reviews()).expect("there");
    assert_eq!(addresses(&first).len(), 2, "one of each family: {first:?}");
    assert_eq!(first.object.metadata.generation, Some(1));

    let applied = world
        .state
        .apply(puts(REVIEWS, &Origin::Api))
        .await
        .expect("applied");
    assert_eq!(applied.actions, [(reviews(), Action::Unchanged)]);

    let world = world.restart().await;
    let changed = REVIEWS.replace("port: 80", "port: 81");
    let applied = world
        .state
        .apply(puts(&changed, &Origin::Api))
        .await
        .expect("applied");
    assert_eq!(applied.actions, [(reviews(), Action::Configured)]);
    let second = world.state.find(&reviews()).expect("there");
    assert_eq!(addresses(&second), addresses(&first));
    assert_eq!(second.object.metadata.generation, Some(2));
    assert_eq!(
        second.object.metadata.created,
        first.object.metadata.created
    );
    assert_ne!(
        second.object.metadata.resource_version,
        first.object.metadata.resource_version
    );
}

#[tokio::test]
async fn a_set_is_applied_whole_or_not_at_all() {
    let world = World::new().await;
    let mut set = puts(REVIEWS, &Origin::Api);
    set.changes.push(Change::Delete {
        key: ObjectKey::new(ObjectKind::Service, "bookshop", "nobody"),
        origin: Origin::Api,
    });
    let error = world.state.apply(set).await.expect_err("nothing to delete");
    assert!(matches!(error, ApplyError::NotFound(_)), "{error}");
    assert!(world.state.find(&reviews()).is_none());
    let world = world.restart().await;
    assert!(
        world.state.find(&reviews()).is_none(),
        "not in the store either"
    );
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let world = World::new().await;
    let mut set = puts(REVIEWS, &Origin::Api);
    set.dry_run = true;
    let applied = world.state.apply(set).await.expect("planned");
    assert_eq!(applied.actions, [(reviews(), Action::Created)]);
    assert!(world.state.find(&reviews()).is_none());
}

#[tokio::test]
async fn what_belongs_to_a_file_is_changed_there_only() {
    let world = World::new().await;
    let file = Origin::File("/etc/mesh/a.yaml".into());
    world
        .state
        .apply(puts(REVIEWS, &file))
        .await
        .expect("applied");
    let error = world
        .state
        .apply(puts(REVIEWS, &Origin::Api))
        .await
        .expect_err("the file's");
    let text = error.to_string();
    assert!(
        text.contains("/etc/mesh/a.yaml") && text.contains("edit that file"),
        "{text}"
    );

    let delete = ChangeSet {
        changes: vec![Change::Delete {
            key: reviews(),
            origin: Origin::Api,
        }],
        ..ChangeSet::default()
    };
    world.state.apply(delete).await.expect_err("the file's");
}

#[tokio::test]
async fn what_belongs_to_the_api_stays_when_a_file_claims_it() {
    let world = World::new().await;
    world
        .state
        .apply(puts(REVIEWS, &Origin::Api))
        .await
        .expect("applied");
    let other = "\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: bookshop}\n";
    let mut set = puts(
        &format!("{REVIEWS}{other}"),
        &Origin::File("/a.yaml".into()),
    );
    set.on_conflict = OnConflict::Skip;
    let applied = world.state.apply(set).await.expect("the rest is applied");
    assert_eq!(applied.conflicts.len(), 1);
    assert!(
        applied.conflicts[0]
            .hint
            .contains("tulle delete service reviews -n bookshop")
    );
    let namespace = ObjectKey::new(ObjectKind::Namespace, "", "bookshop");
    assert!(world.state.find(&namespace).is_some());
}

#[tokio::test]
async fn a_service_made_up_by_the_registry_gives_way() {
    let world = World::new().await;
    world
        .state
        .apply(puts(REVIEWS, &Origin::Registry))
        .await
        .expect("applied");
    let before = addresses(&world.state.find(&reviews()).expect("there"));
    world
        .state
        .apply(puts(REVIEWS, &Origin::Api))
        .await
        .expect("taken over");
    let entry = world.state.find(&reviews()).expect("there");
    assert_eq!(entry.origin, Origin::Api);
    assert_eq!(addresses(&entry), before);
}

#[tokio::test]
async fn a_stale_version_is_not_written_over() {
    let world = World::new().await;
    world
        .state
        .apply(puts(REVIEWS, &Origin::Api))
        .await
        .expect("applied");
    let mut set = puts(&REVIEWS.replace("80", "81"), &Origin::Api);
    if let Some(Change::Put { object, .. }) = set.changes.first_mut() {
        Arc::make_mut(object).metadata.resource_version = Some("0".to_owned());
    }
    let error = world.state.apply(set).await.expect_err("stale");
    assert!(
        error.to_string().contains("changed since it was read"),
        "{error}"
    );
}

#[tokio::test]
async fn two_services_cannot_ask_for_one_address() {
    let world = World::new().await;
    world
        .state
        .apply(puts(REVIEWS, &Origin::Api))
        .await
        .expect("applied");
    let taken = addresses(&world.state.find(&reviews()).expect("there"))[0];
    let other = REVIEWS
        .replace("name: reviews", "name: ratings")
        .replace("spec: {", &format!("spec: {{clusterIP: {taken}, "));
    let error = world
        .state
        .apply(puts(&other, &Origin::Api))
        .await
        .expect_err("taken");
    assert!(
        error.to_string().contains("belongs to another service"),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_that_is_spent_takes_the_set_down_with_it() {
    let world = World::new().await;
    let token = Token {
        id: "t".to_owned(),
        hash: String::new(),
        namespace: String::new(),
        service_account: String::new(),
        created: super::now(),
        created_by: String::new(),
        expires: super::now() + 60,
        used: None,
    };
    let mut set = ChangeSet {
        also: vec![Also::Token(token)],
        ..ChangeSet::default()
    };
    world.state.apply(set.clone()).await.expect("kept");
    let spend = Also::Spend {
        id: "t".to_owned(),
        by: "x".to_owned(),
        now: super::now(),
    };
    set.also = vec![spend.clone()];
    world.state.apply(set).await.expect("first use");
    let mut set = puts(REVIEWS, &Origin::Api);
    set.also = vec![spend];
    let error = world.state.apply(set).await.expect_err("second use");
    assert!(matches!(error, ApplyError::TokenSpent), "{error}");
    assert!(world.state.find(&reviews()).is_none());
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().expect("tempdir");
    let state = state(dir.path()).await;
    {
        let mut apply = std::pin::pin!(state.apply(puts(REVIEWS, &Origin::Api)));
        let _ = futures_util::poll!(&mut apply);
    }
    // Sets are applied in order: when this one is done, the one before is too.
    state.apply(ChangeSet::default()).await.expect("applied");
    assert!(state.find(&reviews()).is_some());
}

#[tokio::test]
async fn what_a_crd_fixes_cannot_be_changed() {
    const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: own}
spec: {controllerName: tulle.dev/gateway}
";
    let world = World::new().await;
    let apply = |text: &str| world.state.apply(puts(text, &Origin::Api));
    apply(CLASS).await.expect("applied");
    let changed = CLASS.replace("tulle.dev", "example.com");
    let error = apply(&changed).await.expect_err("immutable");
    assert!(
        error
            .to_string()
            .contains("spec.controllerName: cannot be changed"),
        "{error}"
    );
    let described = CLASS.replace("gateway}", "gateway, description: ours}");
    apply(&described).await.expect("another field may change");
}
