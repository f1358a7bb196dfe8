//! The storefront: pages for people, JSON for programs.
//!
//! `GET /`, `/books/ISBN`, `/api/books`, `/api/books/ISBN`; `POST /api/purchase` with
//! `{"isbn", "quantity", "card"}` and, to be safe, an `Idempotency-Key`.

use std::fmt::Write;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::Channel;

use super::orders::{Order, Wish};
use super::reviews::Reviews;
use crate::client::Client;
use crate::forward::Forward;
use crate::http_server::{self, Asked, Handler, Reply};
use crate::proto::catalogue_client::CatalogueClient;
use crate::proto::{Book, GetBookRequest, ListBooksRequest};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::{grpc, instance};

pub(crate) async fn serve(
    settings: Settings,
    listener: TcpListener,
    stop: Stop,
) -> anyhow::Result<()> {
    let channel = grpc::channel(&settings.catalogue_addr, &settings.proxies)?;
    let shop = Shop {
        catalogue: CatalogueClient::new(channel),
        client: Client::new(settings.proxies),
        reviews_url: settings.reviews_url,
        orders_url: settings.orders_url,
    };
    http_server::serve("storefront", shop, listener, stop).await
}

struct Shop {
    catalogue: CatalogueClient<Channel>,
    client: Client,
    reviews_url: String,
    orders_url: String,
}

/// What a purchase is asked with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purchase {
    isbn: String,
    #[serde(default = "one")]
    quantity: u32,
    #[serde(default = "card")]
    card: String,
}

fn one() -> u32 {
    1
}

fn card() -> String {
    "4111-1111".to_owned()
}

/// A book as programs see it.
#[derive(Debug, Serialize)]
struct BookJson {
    isbn: String,
    title: String,
    author: String,
    year: u32,
    price_cents: u64,
}

impl From<Book> for BookJson {
    fn from(book: Book) -> Self {
        Self {
            isbn: book.isbn,
            title: book.title,
            author: book.author,
            year: book.year,
            price_cents: book.price_cents,
        }
    }
}

/// Why a page cannot be shown.
struct Trouble(StatusCode, String);

impl From<Trouble> for Reply {
    fn from(Trouble(status, message): Trouble) -> Self {
        Self::error(status, &message)
    }
}

impl Handler for Shop {
    async fn handle(&self, asked: Asked) -> Reply {
        let forward = asked.forward();
        let path = asked.path.as_str();
        let page = match (&asked.method, path) {
            (&Method::GET, "/") => self.front(&forward).await,
            (&Method::GET, "/api/books") => self.list(&forward).await,
            (&Method::POST, "/api/purchase") => self.purchase(&asked, forward).await,
            (&Method::GET, _) => {
                if let Some(isbn) = path.strip_prefix("/api/books/") {
                    self.book(isbn, &forward).await
                } else if let Some(isbn) = path.strip_prefix("/books/") {
                    self.book_page(isbn, &forward).await
                } else {
                    Ok(Reply::not_found())
                }
            }
            _ => Ok(Reply::not_found()),
        };
        page.unwrap_or_else(Reply::from)
    }
}

impl Shop {
    async fn front(&self, forward: &Forward) -> Result<Reply, Trouble> {
        let mut list = String::new();
        for book in self.books(forward).await? {
            let _ = write!(
                list,
                "<li><a href=\"/books/{}\">{}</a>, {}</li>",
                escape(&book.isbn),
                escape(&book.title),
                escape(&book.author)
            );
        }
        Ok(html("Bookshop", &format!("<ul>{list}</ul>")))
    }

    async fn list(&self, forward: &Forward) -> Result<Reply, Trouble> {
        let books: Vec<_> = self.books(forward).await?;
        let books: Vec<_> = books.into_iter().map(BookJson::from).collect();
        Ok(Reply::json(StatusCode::OK, &json!({ "books": books })))
    }

    async fn book(&self, isbn: &str, forward: &Forward) -> Result<Reply, Trouble> {
        let (book, reviews) = tokio::join!(self.find(isbn, forward), self.reviews(isbn, forward));
        let book = BookJson::from(book?);
        let (reviews, error) = match reviews {
            Ok(reviews) => (Some(reviews), None),
            Err(e) => (None, Some(format!("{e:#}"))),
        };
        let page = json!({
            "book": book,
            "reviews": reviews,
            "reviews_error": error,
            "instance": instance::name("storefront"),
        });
        Ok(Reply::json(StatusCode::OK, &page))
    }

    async fn book_page(&self, isbn: &str, forward: &Forward) -> Result<Reply, Trouble> {
        let (book, reviews) = tokio::join!(self.find(isbn, forward), self.reviews(isbn, forward));
        let book = book?;
        let mut body = format!(
            "<p>{}, {}. {}.{:02} €</p><h2>Reviews</h2>",
            escape(&book.author),
            book.year,
            book.price_cents / 100,
            book.price_cents % 100
        );
        match reviews {
            Ok(reviews) => {
                for review in &reviews.list {
                    let stars = "★".repeat(review.stars.unwrap_or_default().into());
                    let colour = review.colour.as_deref().unwrap_or("inherit");
                    let _ = write!(
                        body,
                        "<blockquote>{} <cite>{}</cite> <span style=\"color:{}\">{stars}</span></blockquote>",
                        escape(&review.text),
                        escape(&review.reviewer),
                        escape(colour)
                    );
                }
                let _ = write!(body, "<small>reviews {}</small>", escape(&reviews.version));
            }
            Err(_) => body.push_str("<p>Reviews cannot be shown now.</p>"),
        }
        Ok(html(&book.title, &body))
    }

    async fn purchase(&self, asked: &Asked, forward: Forward) -> Result<Reply, Trouble> {
        let purchase: Purchase = serde_json::from_slice(&asked.body)
            .map_err(|e| Trouble(StatusCode::BAD_REQUEST, e.to_string()))?;
        let key = asked.headers.get("idempotency-key");
        let key = match key.and_then(|key| key.to_str().ok()) {
            Some(key) => key.to_owned(),
            None => format!("{:032x}", rand::random::<u128>()),
        };
        let book = self.find(&purchase.isbn, &forward).await?;
        let wish = json!(Wish {
            isbn: book.isbn,
            quantity: purchase.quantity,
            unit_price_cents: book.price_cents,
            card: purchase.card,
        });
        let url = format!("{}/orders", self.orders_url);
        let forward = forward.with("idempotency-key", &key);
        let answer = self.client.post(&url, &forward, &wish).await;
        let answer = answer.map_err(|e| Trouble(StatusCode::BAD_GATEWAY, format!("{e:#}")))?;
        if !answer.status.is_success() {
            // What the customer can mend is passed on as it is.
            let status = if answer.status.is_client_error() {
                answer.status
            } else {
                StatusCode::BAD_GATEWAY
            };
            return Ok(Reply::new(status, "application/json", answer.body));
        }
        let order: Order = answer
            .json()
            .map_err(|e| Trouble(StatusCode::BAD_GATEWAY, format!("orders: {e:#}")))?;
        let page = json!({
            "order": order,
            "replayed": answer.headers.contains_key("idempotent-replayed"),
            "instance": instance::name("storefront"),
        });
        Ok(Reply::json(answer.status, &page))
    }

    async fn books(&self, forward: &Forward) -> Result<Vec<Book>, Trouble> {
        let list = async {
            let answer = grpc::again(|| {
                let mut catalogue = self.catalogue.clone();
                let request = forward.request(ListBooksRequest {});
                async move { catalogue.list_books(request).await }
            })
            .await?;
            let mut stream = answer.into_inner();
            let mut books = Vec::new();
            while let Some(book) = stream.message().await? {
                books.push(book);
            }
            Ok(books)
        };
        list.await.map_err(|status| trouble(&status))
    }

    async fn find(&self, isbn: &str, forward: &Forward) -> Result<Book, Trouble> {
        grpc::again(|| {
            let mut catalogue = self.catalogue.clone();
            let isbn = isbn.to_owned();
            let request = forward.request(GetBookRequest { isbn });
            async move { catalogue.get_book(request).await }
        })
        .await
        .map(tonic::Response::into_inner)
        .map_err(|status| trouble(&status))
    }

    async fn reviews(&self, isbn: &str, forward: &Forward) -> anyhow::Result<Reviews> {
        // Anything else is for the catalogue to say that there is no such book.
        anyhow::ensure!(isbn.bytes().all(|b| b.is_ascii_digit()), "no such book");
        let url = format!("{}/reviews/{isbn}", self.reviews_url);
        self.client.get(&url, forward).await?.json()
    }
}

fn trouble(status: &tonic::Status) -> Trouble {
    match status.code() {
        Code::NotFound => Trouble(StatusCode::NOT_FOUND, status.message().to_owned()),
        _ => Trouble(StatusCode::BAD_GATEWAY, format!("catalogue: {status}")),
    }
}

fn html(title: &str, body: &str) -> Reply {
    let title = escape(title);
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>\
         <style>body{{font:1.1em/1.5 serif;max-width:40em;margin:3em auto}}</style>\
         <h1>{title}</h1>{body}</html>"
    );
    Reply::new(StatusCode::OK, "text/html; charset=utf-8", page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
