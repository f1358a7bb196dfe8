//! Ratings: stands in for `ratings.py` where there is no Python, and answers the same.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::http_server::{self, Asked, Handler, Reply};
use crate::instance;
use crate::stop::Stop;

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ratings {
    pub(crate) isbn: String,
    /// Stars by reviewer.
    #[serde(rename = "ratings")]
    pub(crate) stars: BTreeMap<String, u8>,
    pub(crate) instance: String,
}

pub(crate) async fn serve(listener: TcpListener, stop: Stop) -> anyhow::Result<()> {
    http_server::serve("ratings", Stars, listener, stop).await
}

struct Stars;

impl Handler for Stars {
    async fn handle(&self, asked: Asked) -> Reply {
        match asked.path.strip_prefix("/ratings/") {
            Some(isbn) if asked.method == Method::GET && (1..=32).contains(&isbn.len()) => {
                Reply::json(StatusCode::OK, &rate(isbn))
            }
            _ => Reply::not_found(),
        }
    }
}

fn rate(isbn: &str) -> Ratings {
    let seed: u32 = isbn.bytes().map(u32::from).sum();
    let stars = [("Mara", 3 + seed % 3), ("Jonas", 2 + seed % 4)];
    Ratings {
        isbn: isbn.to_owned(),
        stars: stars.map(|(who, n)| (who.to_owned(), n as u8)).into(),
        instance: instance::name("ratings"),
    }
}
