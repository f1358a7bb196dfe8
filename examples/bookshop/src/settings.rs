//! Environment variables.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;

use crate::ServiceInfo;
use crate::proxy::Proxies;

/// What a service is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `HOST`: address to listen on; empty for all.
    pub host: String,
    /// `PORT`: where to listen.
    pub port: u16,
    /// `STOREFRONT_URL`.
    pub storefront_url: String,
    /// `CATALOGUE_ADDR`.
    pub catalogue_addr: String,
    /// `REVIEWS_URL`.
    pub reviews_url: String,
    /// `RATINGS_URL`.
    pub ratings_url: String,
    /// `ORDERS_URL`.
    pub orders_url: String,
    /// `PAYMENTS_ADDR`.
    pub payments_addr: String,
    /// `STOCK_ADDR`.
    pub stock_addr: String,
    /// `RATE`: requests a second that the load generator makes.
    pub rate: f64,
    /// `DURATION`: seconds that it does so; endlessly if zero.
    pub duration: Duration,
    /// `HTTP_PROXY` and its kin.
    pub proxies: Proxies,
}

impl Settings {
    /// Reads the environment through `var`.
    pub fn from_env(
        info: &ServiceInfo,
        var: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let or = |name: &str, default: &str| {
            var(name)
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| default.to_owned())
        };
        let url = |name, default| or(name, default).trim_end_matches('/').to_owned();
        let number = |name: &str, default: &str| -> anyhow::Result<f64> {
            let text = or(name, default);
            let value: Option<f64> = text.parse().ok();
            value
                .filter(|n| (0.0..=1e6).contains(n))
                .with_context(|| format!("{name}: \"{text}\" is not a number from 0 to 1000000"))
        };
        let port = or("PORT", &info.port.to_string());
        Ok(Self {
            host: or("HOST", ""),
            port: port
                .parse()
                .with_context(|| format!("PORT: \"{port}\" is not a port"))?,
            storefront_url: url("STOREFRONT_URL", "http://storefront.bookshop"),
            catalogue_addr: or("CATALOGUE_ADDR", "catalogue.bookshop:9090"),
            reviews_url: url("REVIEWS_URL", "http://reviews.bookshop"),
            ratings_url: url("RATINGS_URL", "http://ratings.bookshop"),
            orders_url: url("ORDERS_URL", "http://orders.bookshop"),
            payments_addr: or("PAYMENTS_ADDR", "payments.bookshop:9090"),
            stock_addr: or("STOCK_ADDR", "stock.bookshop:9070"),
            rate: number("RATE", "20")?,
            duration: Duration::from_secs_f64(number("DURATION", "0")?),
            proxies: Proxies::from_env(var)?,
        })
    }

    /// Opens the listening socket; without `HOST`, on all addresses of both families.
    pub(crate) async fn listen(&self) -> anyhow::Result<TcpListener> {
        let (host, port) = (&self.host, self.port);
        if !host.is_empty() {
            return TcpListener::bind((host.as_str(), port))
                .await
                .with_context(|| format!("cannot listen on {host} port {port}"));
        }
        if let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            return Ok(listener);
        }
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("cannot listen on port {port}"))
    }
}
