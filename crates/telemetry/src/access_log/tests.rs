use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

fn entry() -> Entry<'static> {
    Entry {
        trace_id: Some([0xab; 16]),
        span_id: Some([1; 8]),
        request_id: "r-1",
        method: "GET",
        authority: "user:secret@reviews.bookshop",
        path: "/reviews/1?token=secret",
        protocol: "http/1.1",
        status: 503,
        reason: Some(Reason::NoEndpoints),
        details: "no \"workload\" serves\nreviews",
        duration: Duration::from_micros(12_345),
        response_bytes: 7,
        source_principal: "spiffe://mesh.local/ns/bookshop/sa/storefront",
        source_address: Some(([127, 0, 0, 1], 4000).into()),
        destination: "reviews.bookshop",
        route: "bookshop/reviews",
        attempts: 2,
        mtls: true,
        ..Entry::at(
            SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_361_346_000_042),
            Direction::Outbound,
        )
    }
}

#[test]
fn a_line_has_every_key_and_no_secret() {
    let line = String::from_utf8(entry().to_line()).expect("text");
    let want = concat!(
        r#"{"time":"2026-11-22T15:29:06.000042Z","trace_id":"abababababababababababababababab","#,
        r#""span_id":"0101010101010101","request_id":"r-1","direction":"outbound","method":"GET","#,
        r#""authority":"reviews.bookshop","path":"/reviews/1","protocol":"http/1.1","status":503,"#,
        r#""grpc_status":null,"reason":"no_endpoints","details":"no \"workload\" serves\nreviews","#,
        r#""duration_ms":12.345,"upstream_duration_ms":null,"request_bytes":0,"response_bytes":7,"#,
        r#""source":"","source_principal":"spiffe://mesh.local/ns/bookshop/sa/storefront","#,
        r#""source_address":"127.0.0.1:4000","destination":"reviews.bookshop","#,
        r#""destination_workload":"","destination_version":"","destination_principal":"","#,
        r#""route":"bookshop/reviews","upstream_address":"","attempts":2,"mtls":true,"#,
        r#""tls_group":"","user_agent":""}"#,
        "\n"
    );
    assert_eq!(line, want);
    serde_json::from_str::<serde_json::Value>(&line).expect("JSON");
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let path = format!("/{}", "é".repeat(MAX_TEXT));
    let line = Entry {
        path: &path,
        ..entry()
    }
    .to_line();
    let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
    let logged = value["path"].as_str().expect("text");
    assert!(path.starts_with(logged));
    assert!((MAX_TEXT - 2..=MAX_TEXT).contains(&logged.len()));
}

/// Takes a line only when the test lets it.
struct Gate {
    entered: SyncSender<()>,
    open: Receiver<()>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        let _ = self.open.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_that_find_no_room_are_dropped_and_counted() {
    let (entered, wait) = sync_channel(1);
    let (open, gate) = sync_channel(1);
    let gate = Gate {
        entered,
        open: gate,
    };
    let log = Log::to_writer(gate, 4).expect("started");
    log.write(&entry());
    // The writer is now stuck in that line's flush: four more wait, the rest is lost.
    wait.recv().expect("the writer runs");
    for _ in 0..10 {
        log.write(&entry());
    }
    assert_eq!(log.dropped(), 6);
    drop(open);
    assert!(log.flush(Duration::from_secs(10)));
    assert_eq!(log.dropped(), 6);
}

#[test]
fn a_file_is_appended_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.log");
    for _ in 0..2 {
        let log = Log::to(Target::File(path.clone())).expect("opened");
        log.write(&entry());
        assert!(log.flush(Duration::from_secs(10)));
    }
    let text = std::fs::read_to_string(&path).expect("written");
    assert_eq!(text.lines().count(), 2);
    assert!(Log::to(Target::File(dir.path().join("no/such/dir"))).is_err());
}
