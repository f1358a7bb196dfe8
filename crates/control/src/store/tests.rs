use super::object::{AuditEntry, Stored};
use super::*;

fn stored(name: &str, version: u64) -> Stored {
    Stored {
        kind: "Service".to_owned(),
        namespace: "a".to_owned(),
        name: name.to_owned(),
        generation: 1,
        created: 7,
        origin: "api".to_owned(),
        json: "{}".to_owned(),
        resource_version: version,
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("control.db");
    let store = Store::open(&path).expect("opens");
    let version = store
        .write(|t| {
            let version = object::version(t)? + 1;
            object::set_version(t, version)?;
            object::put(t, &stored("reviews", version))?;
            object::allot(t, "services", "a/reviews", 12)?;
            Ok(version)
        })
        .await
        .expect("written");
    drop(store);

    let store = Store::open(&path).expect("reopens");
    let (objects, addresses) = store
        .write(|t| Ok((object::all(t)?, object::addresses(t)?)))
        .await
        .expect("read");
    assert_eq!(objects, [stored("reviews", version)]);
    assert_eq!(
        addresses,
        [("services".to_owned(), "a/reviews".to_owned(), 12)]
    );
    let last = store.write(object::version).await.expect("read");
    assert_eq!(last, version, "versions go on where they were");
}

#[tokio::test]
async fn a_failed_job_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::open(&dir.path().join("control.db")).expect("opens");
    let failed = store
        .write(|t| {
            object::put(t, &stored("half", 1))?;
            t.execute_batch("INSERT INTO nowhere VALUES (1)")
        })
        .await;
    assert!(
        matches!(failed, Err(StoreError::Failed { .. })),
        "{failed:?}"
    );
    let objects = store.write(object::all).await.expect("read");
    assert!(objects.is_empty(), "{objects:?}");
}

#[tokio::test]
async fn a_job_is_finished_when_its_caller_goes_away() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::open(&dir.path().join("control.db")).expect("opens");
    {
        let write = store.write(|t| object::put(t, &stored("kept", 1)));
        let mut write = std::pin::pin!(write);
        let _ = futures_util::poll!(&mut write);
    }
    let objects = store.write(object::all).await.expect("read");
    assert_eq!(objects.len(), 1);
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("control.db");
    let _first = Store::open(&path).expect("opens");
    let second = Store::open(&path).expect_err("locked");
    assert!(matches!(second, StoreError::InUse { .. }), "{second:?}");
}

#[test]
fn a_damaged_file_is_named_with_a_remedy() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("control.db");
    std::fs::write(&path, vec![b'x'; 8192]).expect("written");
    let error = Store::open(&path).expect_err("damaged");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("restore a copy"), "{error}");
}

#[test]
fn a_page_overwritten_in_the_middle_is_found() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("control.db");
    drop(Store::open(&path).expect("opens"));
    let mut bytes = std::fs::read(&path).expect("read");
    assert!(bytes.len() > 8192, "several pages");
    bytes[4096..8192].fill(0xa5);
    std::fs::write(&path, bytes).expect("written");
    let error = Store::open(&path).expect_err("damaged");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_later_schema_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("control.db");
    let connection = Connection::open(&path).expect("opens");
    connection
        .pragma_update(None, "user_version", 99)
        .expect("set");
    drop(connection);
    let error = Store::open(&path).expect_err("newer");
    assert!(
        matches!(error, StoreError::Newer { found: 99, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_token_is_spent_once() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::open(&dir.path().join("control.db")).expect("opens");
    let new = token::Token {
        id: "id".to_owned(),
        hash: "hash".to_owned(),
        namespace: "a".to_owned(),
        service_account: "b".to_owned(),
        created: 100,
        created_by: "uid:0".to_owned(),
        expires: 200,
        used: None,
    };
    let kept = new.clone();
    store
        .write(move |t| token::add(t, &new))
        .await
        .expect("added");
    let found = store.write(|t| token::find(t, "id")).await.expect("read");
    assert_eq!(found, Some(kept));
    assert!(
        !store
            .write(|t| token::spend(t, "id", 201, "x"))
            .await
            .expect("too late")
    );
    assert!(
        store
            .write(|t| token::spend(t, "id", 150, "x"))
            .await
            .expect("first")
    );
    assert!(
        !store
            .write(|t| token::spend(t, "id", 150, "x"))
            .await
            .expect("second")
    );
}

#[tokio::test]
async fn the_audit_log_is_bounded_and_newest_first() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Store::open(&dir.path().join("control.db")).expect("opens");
    let log = store
        .write(|t| {
            for at in 0..10_050 {
                object::audit(
                    t,
                    &AuditEntry {
                        at,
                        who: "uid:0".to_owned(),
                        action: "created".to_owned(),
                        kind: "Service".to_owned(),
                        namespace: "a".to_owned(),
                        name: "b".to_owned(),
                        generation: 1,
                    },
                )?;
            }
            object::audit_log(t, 20_000)
        })
        .await
        .expect("written");
    assert_eq!(log.len(), 10_000);
    assert_eq!(log[0].at, 10_049);
}
