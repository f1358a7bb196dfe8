//! The services on free ports, wired to each other without a mesh.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};
use crate::forward::Forward;
use crate::http_server::{Asked, Handler, Reply};
use crate::proto::payments_client::PaymentsClient;
use crate::proto::{GetTotalsRequest, Totals};
use crate::proxy::Proxies;
use crate::service::{load, ratings, stock};
use crate::{Protocol, Settings, Stop, books, grpc, http_server, services};

fn settings() -> Settings {
    Settings::from_env(&services()[0], |_| None).expect("the defaults are valid")
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

/// Services that run until dropped.
struct Shop {
    settings: Settings,
    stop: Stop,
    pull: watch::Sender<bool>,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Shop {
    fn empty() -> Self {
        let (pull, stop) = Stop::by_hand();
        Self {
            settings: settings(),
            stop,
            pull,
            tasks: Vec::new(),
        }
    }

    /// All services, the reviews in version 2.
    async fn open() -> Self {
        let mut shop = Self::empty();
        shop.settings.catalogue_addr = shop.start("catalogue").await;
        shop.settings.payments_addr = shop.start("payments").await;
        shop.settings.stock_addr = shop.start("stock").await;
        shop.settings.ratings_url = format!("http://{}", shop.start("ratings").await);
        shop.settings.reviews_url = format!("http://{}", shop.start("reviews-v2").await);
        shop.settings.orders_url = format!("http://{}", shop.start("orders").await);
        shop.settings.storefront_url = format!("http://{}", shop.start("storefront").await);
        shop
    }

    /// Starts a service; its address.
    async fn start(&mut self, workload: &'static str) -> String {
        let (listener, address) = listener().await;
        let (settings, stop) = (self.settings.clone(), self.stop.clone());
        self.tasks.push(tokio::spawn(crate::serve(
            workload, settings, listener, stop,
        )));
        address
    }

    async fn get(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.settings.storefront_url);
        let client = Client::new(Proxies::default());
        client
            .get(&url, &Forward::default())
            .await
            .expect("answered")
    }

    async fn purchase(&self, key: &str, wish: Value) -> Answer {
        let url = format!("{}/api/purchase", self.settings.storefront_url);
        let forward = Forward::default().with("idempotency-key", key);
        let client = Client::new(Proxies::default());
        client.post(&url, &forward, &wish).await.expect("answered")
    }

    async fn totals(&self) -> Totals {
        let channel = grpc::channel(&self.settings.payments_addr, &Proxies::default());
        let mut payments = PaymentsClient::new(channel.expect("valid"));
        let totals = payments.get_totals(GetTotalsRequest {}).await;
        totals.expect("answered").into_inner()
    }

    async fn stock(&self, isbn: &str) -> String {
        let command = format!("STOCK {isbn}");
        let answer = stock::ask(&self.settings.stock_addr, &command).await;
        answer.expect("answered")
    }
}

#[tokio::test]
async fn a_purchase_goes_through_every_service_and_is_charged_once() {
    let shop = Shop::open().await;
    let isbn = books::isbns()[0];
    let wish = json!({ "isbn": isbn, "quantity": 2 });

    let first = shop.purchase("key-1", wish.clone()).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let pid = std::process::id();
    let instance = first.headers["x-bookshop-instance"].to_str().expect("text");
    assert_eq!(instance, format!("storefront-{pid}"));
    let page: Value = first.json().expect("JSON");
    assert_eq!(page["order"]["total_cents"], 2 * 899);
    assert_eq!(
        page["order"]["payments_instance"],
        format!("payments-{pid}")
    );
    assert_eq!(page["replayed"], false);
    assert_eq!(shop.stock(isbn).await, "999998");

    let again = shop.purchase("key-1", wish).await;
    assert_eq!(again.status, StatusCode::OK);
    let replay: Value = again.json().expect("JSON");
    assert_eq!(replay["replayed"], true);
    assert_eq!(replay["order"], page["order"]);
    let other = shop
        .purchase("key-1", json!({ "isbn": isbn, "quantity": 3 }))
        .await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);

    let totals = shop.totals().await;
    assert_eq!((totals.charges, totals.amount_cents), (1, 2 * 899));
    assert_eq!(shop.stock(isbn).await, "999998");
}

#[tokio::test]
async fn the_same_order_at_the_same_time_is_charged_once() {
    let shop = Arc::new(Shop::open().await);
    let purchases: Vec<_> = (0..8)
        .map(|_| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move {
                let wish = json!({ "isbn": books::isbns()[1] });
                shop.purchase("twin", wish).await.status
            })
        })
        .collect();
    for purchase in purchases {
        assert!(purchase.await.expect("no panic").is_success());
    }
    assert_eq!(shop.totals().await.charges, 1);
}

#[tokio::test]
async fn a_declined_card_gives_the_stock_back() {
    let shop = Shop::open().await;
    let isbn = books::isbns()[0];
    let wish = json!({ "isbn": isbn, "card": "4111-0000" });
    let answer = shop.purchase("poor", wish).await;
    assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED, "{answer:?}");
    assert_eq!(shop.stock(isbn).await, "1000000");
    assert_eq!(shop.totals().await.charges, 0);
    // What failed may be tried again under the same key.
    let answer = shop.purchase("poor", json!({ "isbn": isbn })).await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[tokio::test]
async fn pages_show_books_with_reviews_and_stars() {
    let shop = Shop::open().await;
    let isbn = books::isbns()[0];
    let front = shop.get("/").await;
    assert!(String::from_utf8_lossy(&front.body).contains("Pride and Prejudice"));
    let list: Value = shop.get("/api/books").await.json().expect("JSON");
    assert_eq!(list["books"].as_array().map(Vec::len), Some(8));
    let page = shop.get(&format!("/books/{isbn}")).await;
    assert!(String::from_utf8_lossy(&page.body).contains('★'));
    let book: Value = shop
        .get(&format!("/api/books/{isbn}"))
        .await
        .json()
        .expect("JSON");
    assert_eq!(book["reviews"]["version"], "v2");
    assert_eq!(book["reviews"]["reviews"][0]["colour"], "black");
    for path in ["/api/books/1", "/books/1", "/api/books/x%20y", "/nothing"] {
        assert_eq!(shop.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_bad_purchase_is_refused_with_its_reason() {
    let shop = Shop::open().await;
    let isbn = books::isbns()[0];
    for (key, wish, status) in [
        ("a", json!({ "isbn": "1" }), 404),
        ("a", json!({ "isbn": isbn, "quantity": 0 }), 400),
        ("a", json!({ "isbn": isbn, "count": 1 }), 400),
        ("a b", json!({ "isbn": isbn }), 400),
        ("a", json!([]), 400),
    ] {
        let answer = shop.purchase(key, wish.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{wish} {answer:?}");
    }
    assert_eq!(shop.totals().await.charges, 0);
}

#[tokio::test]
async fn books_and_reviews_survive_the_loss_of_what_they_call() {
    let mut shop = Shop::open().await;
    let (gone, address) = listener().await;
    drop(gone);
    shop.settings.ratings_url = format!("http://{address}");
    shop.settings.reviews_url = format!("http://{}", shop.start("reviews-v3").await);
    shop.settings.storefront_url = format!("http://{}", shop.start("storefront").await);
    let path = format!("/api/books/{}", books::isbns()[0]);
    let book: Value = shop.get(&path).await.json().expect("JSON");
    assert_eq!(book["reviews"]["version"], "v3");
    assert!(book["reviews"]["ratings_error"].is_string(), "{book}");

    shop.settings.reviews_url = format!("http://{address}");
    shop.settings.storefront_url = format!("http://{}", shop.start("storefront").await);
    let book: Value = shop.get(&path).await.json().expect("JSON");
    assert!(book["reviews_error"].is_string(), "{book}");
}

/// Keeps the headers of what it is asked.
struct Recorder(Arc<Mutex<Vec<HeaderMap>>>);

impl Handler for Recorder {
    async fn handle(&self, asked: Asked) -> Reply {
        self.0.lock().unwrap().push(asked.headers);
        Reply::json(
            StatusCode::OK,
            &json!({ "isbn": "", "ratings": {}, "instance": "x" }),
        )
    }
}

#[tokio::test]
async fn trace_headers_travel_from_the_storefront_to_the_ratings() {
    let mut shop = Shop::open().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (listener, address) = listener().await;
    tokio::spawn(http_server::serve(
        "recorder",
        Recorder(Arc::clone(&seen)),
        listener,
        shop.stop.clone(),
    ));
    shop.settings.ratings_url = format!("http://{address}");
    shop.settings.reviews_url = format!("http://{}", shop.start("reviews-v3").await);
    shop.settings.storefront_url = format!("http://{}", shop.start("storefront").await);

    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let forward = Forward::default()
        .with("traceparent", parent)
        .with("x-request-id", "r-1")
        .with("x-user", "jason")
        .with("cookie", "secret");
    let isbn = books::isbns()[0];
    let url = format!("{}/api/books/{isbn}", shop.settings.storefront_url);
    let client = Client::new(Proxies::default());
    client.get(&url, &forward).await.expect("answered");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0]["traceparent"], parent);
    assert_eq!(seen[0]["x-request-id"], "r-1");
    assert_eq!(seen[0]["x-user"], "jason");
    assert!(!seen[0].contains_key("cookie"));
}

/// Reads up to the empty line.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("more of the head"));
    }
    String::from_utf8(head).expect("text")
}

/// A proxy that tells what it was asked, answers `GET`, and leads CONNECT to `target`.
async fn fake_proxy(target: String) -> (Proxies, mpsc::Receiver<String>) {
    let (listener, address) = listener().await;
    let (tell, told) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (tell, target) = (tell.clone(), target.clone());
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                let connect = head.starts_with("CONNECT");
                let _ = tell.send(head).await;
                if connect {
                    let mut upstream = TcpStream::connect(target).await.expect("there");
                    let ok = b"HTTP/1.1 200 OK\r\n\r\n";
                    stream.write_all(ok).await.expect("written");
                    let _ = copy_bidirectional(&mut stream, &mut upstream).await;
                } else {
                    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                    stream.write_all(answer).await.expect("written");
                }
            });
        }
    });
    let var = move |name: &str| (name == "http_proxy").then(|| format!("http://{address}"));
    (Proxies::from_env(var).expect("valid"), told)
}

#[tokio::test]
async fn proxies_get_whole_urls_for_http_and_connect_for_grpc() {
    let mut shop = Shop::empty();
    let payments = shop.start("payments").await;
    let (proxies, mut told) = fake_proxy(payments).await;

    let client = Client::new(proxies.clone());
    let url = "http://reviews.bookshop/reviews/1";
    let answer = client
        .get(url, &Forward::default())
        .await
        .expect("answered");
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let head = told.recv().await.expect("asked").to_ascii_lowercase();
    assert!(
        head.starts_with("get http://reviews.bookshop/reviews/1 http/1.1\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nhost: reviews.bookshop\r\n"), "{head}");

    shop.settings.payments_addr = "payments.bookshop:9090".to_owned();
    let channel = grpc::channel(&shop.settings.payments_addr, &proxies).expect("valid");
    let totals = PaymentsClient::new(channel)
        .get_totals(GetTotalsRequest {})
        .await;
    let totals = totals.expect("answered through the tunnel");
    assert!(totals.metadata().contains_key("x-bookshop-instance"));
    let head = told.recv().await.expect("asked");
    assert!(
        head.starts_with("CONNECT payments.bookshop:9090 HTTP/1.1\r\n"),
        "{head}"
    );
}

/// Answers when it is let.
struct Slow {
    entered: mpsc::Sender<()>,
    go: watch::Receiver<bool>,
}

impl Handler for Slow {
    async fn handle(&self, _asked: Asked) -> Reply {
        let _ = self.entered.send(()).await;
        let _ = self.go.clone().wait_for(|go| *go).await;
        Reply::new(StatusCode::OK, "text/plain", "done")
    }
}

#[tokio::test]
async fn a_request_in_flight_ends_before_the_service_does() {
    let (pull, stop) = Stop::by_hand();
    let (listener, address) = listener().await;
    let (entered, mut entries) = mpsc::channel(1);
    let (go, wait) = watch::channel(false);
    let handler = Slow { entered, go: wait };
    let server = tokio::spawn(http_server::serve("slow", handler, listener, stop));
    let request = tokio::spawn(async move {
        let client = Client::new(Proxies::default());
        client
            .get(&format!("http://{address}/"), &Forward::default())
            .await
    });
    entries.recv().await.expect("the request arrived");
    pull.send(true).expect("the server listens");
    go.send(true).expect("the handler waits");
    let answer = request.await.expect("no panic").expect("answered");
    assert_eq!(&answer.body[..], b"done");
    server.await.expect("no panic").expect("ended well");
}

#[tokio::test]
async fn every_service_ends_when_told() {
    let mut shop = Shop::open().await;
    assert!(shop.get("/api/books").await.status.is_success());
    // A stock client that says nothing must not hold it up.
    let mut idle = TcpStream::connect(&shop.settings.stock_addr)
        .await
        .expect("there");
    let mut greeting = [0; 4];
    idle.read_exact(&mut greeting)
        .await
        .expect("the server speaks first");
    assert_eq!(&greeting, b"220 ");
    shop.pull.send(true).expect("they listen");
    for task in shop.tasks.drain(..) {
        task.await.expect("no panic").expect("ended well");
    }
}

#[tokio::test]
async fn the_load_generator_looks_and_buys() {
    let mut shop = Shop::open().await;
    shop.settings.rate = 400.0;
    shop.settings.duration = Duration::from_secs(1);
    let summary = load::generate(&shop.settings, shop.stop.clone()).await;
    assert_eq!(summary.failed, 0, "{summary:?}");
    assert!(
        summary.orders > 0 && summary.reviews["v2"] > 0,
        "{summary:?}"
    );
    assert_eq!(summary.orders, shop.totals().await.charges);
}

/// Ends the process when the test does.
struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn ratings_in_python_answer_as_the_stand_in_does() {
    let mut shop = Shop::empty();
    let stand_in = shop.start("ratings").await;
    let (free, address) = listener().await;
    let port = free.local_addr().expect("bound").port().to_string();
    drop(free);
    let python = Command::new("python3")
        .args(["-c", crate::RATINGS_PY])
        .envs([("PORT", port.as_str()), ("HOST", "127.0.0.1")])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(child) = python else {
        eprintln!("no python3 here: not tested");
        return;
    };
    let mut python = Python(child);
    // It says when it listens.
    let mut stderr = BufReader::new(python.0.stderr.take().expect("piped"));
    let said = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        // The pipe stays open: a process that speaks to nobody ends.
        stderr.read_line(&mut said).map(|_| (said, stderr))
    });
    let (said, _stderr) = said.await.expect("no panic").expect("it speaks");
    assert!(
        said.starts_with("ratings-") && said.ends_with('\n'),
        "{said}"
    );

    let client = Client::new(Proxies::default());
    for isbn in books::isbns() {
        let mut answers = Vec::new();
        for server in [&stand_in, &address] {
            let url = format!("http://{server}/ratings/{isbn}");
            let answer = client
                .get(&url, &Forward::default())
                .await
                .expect("answered");
            assert!(answer.headers.contains_key("x-bookshop-instance"));
            answers.push(answer.json::<ratings::Ratings>().expect("ratings").stars);
        }
        assert_eq!(answers[0], answers[1], "{isbn}");
    }
}

#[test]
fn the_manifest_is_what_the_control_plane_takes() {
    let parsed = config::parse("manifest.yaml", crate::MANIFEST);
    let found: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(
        parsed.objects.len(),
        crate::MANIFEST.matches("\nkind: ").count()
    );
}

#[test]
fn the_manifest_has_a_service_for_all_that_listen() {
    for info in services() {
        if info.protocol != Protocol::None {
            let name = format!("metadata: {{name: {}, namespace: bookshop}}", info.name);
            assert!(crate::MANIFEST.contains(&name), "{}", info.name);
        }
    }
}
