//! Reviews, in three versions: the first without stars, the second with black ones, the third with
//! red ones. Without ratings there are still reviews.

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::ratings::Ratings;
use crate::client::Client;
use crate::http_server::{self, Asked, Handler, Reply};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::{books, instance};

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reviews {
    pub(crate) isbn: String,
    pub(crate) version: String,
    pub(crate) instance: String,
    #[serde(rename = "reviews")]
    pub(crate) list: Vec<Review>,
    /// Which instance rated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratings_instance: Option<String>,
    /// Why there are no stars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratings_error: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Review {
    pub(crate) reviewer: String,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stars: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) colour: Option<String>,
}

const REVIEWS: [(&str, &str); 2] = [
    ("Mara", "Read it on a train and missed my stop."),
    ("Jonas", "Long, but the ending repays it."),
];

pub(crate) async fn serve(
    version: &str,
    settings: Settings,
    listener: TcpListener,
    stop: Stop,
) -> anyhow::Result<()> {
    let workload = format!("reviews-{version}");
    let handler = Reviewers {
        version: version.to_owned(),
        instance: instance::name(&workload),
        client: Client::new(settings.proxies),
        ratings_url: settings.ratings_url,
    };
    http_server::serve(&workload, handler, listener, stop).await
}

struct Reviewers {
    version: String,
    instance: String,
    client: Client,
    ratings_url: String,
}

impl Handler for Reviewers {
    async fn handle(&self, asked: Asked) -> Reply {
        match asked.path.strip_prefix("/reviews/") {
            Some(isbn) if asked.method == Method::GET && books::isbns().contains(&isbn) => {
                Reply::json(StatusCode::OK, &self.of(isbn, &asked).await)
            }
            _ => Reply::not_found(),
        }
    }
}

impl Reviewers {
    async fn of(&self, isbn: &str, asked: &Asked) -> Reviews {
        let colour = match self.version.as_str() {
            "v2" => Some("black"),
            "v3" => Some("red"),
            _ => None,
        };
        let mut all = Reviews {
            isbn: isbn.to_owned(),
            version: self.version.clone(),
            instance: self.instance.clone(),
            list: REVIEWS
                .map(|(reviewer, text)| Review {
                    reviewer: reviewer.to_owned(),
                    text: text.to_owned(),
                    stars: None,
                    colour: None,
                })
                .into(),
            ratings_instance: None,
            ratings_error: None,
        };
        let Some(colour) = colour else {
            return all;
        };
        let url = format!("{}/ratings/{isbn}", self.ratings_url);
        let answer = self.client.get(&url, &asked.forward()).await;
        match answer.and_then(|answer| answer.json::<Ratings>()) {
            Ok(ratings) => {
                for review in &mut all.list {
                    review.stars = ratings.stars.get(&review.reviewer).copied();
                    review.colour = Some(colour.to_owned());
                }
                all.ratings_instance = Some(ratings.instance);
            }
            Err(e) => all.ratings_error = Some(format!("{e:#}")),
        }
        all
    }
}
