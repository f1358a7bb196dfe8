//! Orders: reserves stock, charges the card, gives the stock back if the card is declined.
//!
//! `POST /orders` wants an `Idempotency-Key`: the same key is carried out once, and answered the
//! same however often it is sent, also while the first is still at work. A failure that may pass
//! is not remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tonic::Code;
use tonic::transport::Channel;

use super::stock::{self, Refusal};
use crate::forward::Forward;
use crate::http_server::{self, Asked, Handler, Reply};
use crate::proto::ChargeRequest;
use crate::proto::payments_client::PaymentsClient;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::{grpc, instance};

/// Orders remembered.
const MAX_ORDERS: usize = 100_000;

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    pub(crate) isbn: String,
    pub(crate) quantity: u32,
    pub(crate) unit_price_cents: u64,
    pub(crate) card: String,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) isbn: String,
    pub(crate) quantity: u32,
    pub(crate) total_cents: u64,
    pub(crate) receipt: String,
    pub(crate) stock: String,
    pub(crate) instance: String,
    pub(crate) payments_instance: String,
}

pub(crate) async fn serve(
    settings: Settings,
    listener: TcpListener,
    stop: Stop,
) -> anyhow::Result<()> {
    let channel = grpc::channel(&settings.payments_addr, &settings.proxies)?;
    let desk = Desk {
        payments: PaymentsClient::new(channel),
        stock_addr: settings.stock_addr,
        orders: Mutex::default(),
    };
    http_server::serve("orders", desk, listener, stop).await
}

struct Desk {
    payments: PaymentsClient<Channel>,
    stock_addr: String,
    orders: Mutex<Book>,
}

/// Orders by idempotency key, the oldest first in line to be forgotten.
#[derive(Default)]
struct Book {
    by_key: HashMap<String, Arc<OnceCell<Order>>>,
    line: VecDeque<String>,
}

impl Handler for Desk {
    async fn handle(&self, asked: Asked) -> Reply {
        if asked.method != Method::POST || asked.path != "/orders" {
            return Reply::not_found();
        }
        let key = asked
            .headers
            .get("idempotency-key")
            .and_then(|key| key.to_str().ok());
        let Some(key) = key.filter(|key| is_key(key)) else {
            let message = "Idempotency-Key: 1 to 100 letters, digits, '-', '_' or '.'";
            return Reply::error(StatusCode::BAD_REQUEST, message);
        };
        match serde_json::from_slice::<Wish>(&asked.body) {
            Ok(wish) if (1..=100).contains(&wish.quantity) => {
                self.take(key, wish, &asked.forward()).await
            }
            Ok(_) => Reply::error(StatusCode::BAD_REQUEST, "quantity: from 1 to 100"),
            Err(e) => Reply::error(StatusCode::BAD_REQUEST, &e.to_string()),
        }
    }
}

/// Goes into a line of the stock protocol, so no spaces.
fn is_key(key: &str) -> bool {
    (1..=100).contains(&key.len())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl Desk {
    async fn take(&self, key: &str, wish: Wish, forward: &Forward) -> Reply {
        let cell = self.cell(key);
        let replay = cell.initialized();
        let carried_out = cell
            .get_or_try_init(|| self.carry_out(key, &wish, forward))
            .await;
        match carried_out {
            Ok(order) if order.isbn != wish.isbn || order.quantity != wish.quantity => {
                let message = "this Idempotency-Key belongs to another order";
                Reply::error(StatusCode::UNPROCESSABLE_ENTITY, message)
            }
            Ok(order) if replay => {
                Reply::json(StatusCode::OK, order).header("idempotent-replayed", "true")
            }
            Ok(order) => Reply::json(StatusCode::CREATED, order),
            Err((status, message)) => Reply::error(status, &message),
        }
    }

    fn cell(&self, key: &str) -> Arc<OnceCell<Order>> {
        let mut book = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = book.by_key.get(key) {
            return Arc::clone(cell);
        }
        let cell = Arc::<OnceCell<Order>>::default();
        book.by_key.insert(key.to_owned(), Arc::clone(&cell));
        book.line.push_back(key.to_owned());
        if book.line.len() > MAX_ORDERS
            && let Some(oldest) = book.line.pop_front()
        {
            book.by_key.remove(&oldest);
        }
        cell
    }

    async fn carry_out(
        &self,
        key: &str,
        wish: &Wish,
        forward: &Forward,
    ) -> Result<Order, (StatusCode, String)> {
        let total_cents = wish.unit_price_cents.saturating_mul(wish.quantity.into());
        let (isbn, quantity) = (&wish.isbn, wish.quantity);
        if !is_key(isbn) {
            return Err((StatusCode::BAD_REQUEST, "isbn: not one".to_owned()));
        }
        let reserve = format!("RESERVE {isbn} {quantity} {key}");
        let stock =
            stock::ask(&self.stock_addr, &reserve)
                .await
                .map_err(|refusal| match refusal {
                    Refusal::No(why) => (StatusCode::CONFLICT, why),
                    Refusal::Failed(e) => (StatusCode::BAD_GATEWAY, format!("{e:#}")),
                })?;
        let charge = ChargeRequest {
            idempotency_key: key.to_owned(),
            amount_cents: total_cents,
            card: wish.card.clone(),
        };
        let charged = grpc::again(|| {
            let mut payments = self.payments.clone();
            let request = forward.request(charge.clone());
            async move { payments.charge(request).await }
        })
        .await;
        let charged = match charged {
            Ok(charged) => charged,
            Err(status) if status.code() == Code::FailedPrecondition => {
                // Whoever asks again will find it reserved if this fails.
                let release = format!("RELEASE {isbn} {key}");
                let _ = stock::ask(&self.stock_addr, &release).await;
                return Err((StatusCode::PAYMENT_REQUIRED, status.message().to_owned()));
            }
            Err(status) => return Err((StatusCode::BAD_GATEWAY, format!("payments: {status}"))),
        };
        let payments_instance = charged
            .metadata()
            .get(instance::HEADER)
            .and_then(|name| name.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        Ok(Order {
            id: format!("order-{key}"),
            isbn: isbn.clone(),
            quantity,
            total_cents,
            receipt: charged.into_inner().id,
            stock,
            instance: instance::name("orders"),
            payments_instance,
        })
    }
}
