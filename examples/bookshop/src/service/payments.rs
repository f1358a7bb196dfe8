//! Payments: gRPC; a key is charged once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::grpc::signed;
use crate::proto::payments_server::{Payments, PaymentsServer};
use crate::proto::{ChargeRequest, GetTotalsRequest, Receipt, Totals};
use crate::stop::Stop;

/// Receipts remembered.
const MAX_RECEIPTS: usize = 100_000;

pub(crate) async fn serve(listener: TcpListener, stop: Stop) -> anyhow::Result<()> {
    Server::builder()
        .add_service(PaymentsServer::new(Till::default()))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.wait())
        .await?;
    Ok(())
}

#[derive(Default)]
struct Till(Mutex<Ledger>);

#[derive(Default)]
struct Ledger {
    receipts: HashMap<String, Receipt>,
    order: VecDeque<String>,
    totals: Totals,
}

#[tonic::async_trait]
impl Payments for Till {
    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<Receipt>, Status> {
        let charge = request.into_inner();
        if charge.idempotency_key.is_empty() || charge.idempotency_key.len() > 128 {
            return Err(Status::invalid_argument("idempotency_key: 1 to 128 bytes"));
        }
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receipt) = ledger.receipts.get(&charge.idempotency_key) {
            return Ok(signed("payments", receipt.clone()));
        }
        if charge.card.ends_with("0000") {
            return Err(Status::failed_precondition("the card was declined"));
        }
        ledger.totals.charges += 1;
        ledger.totals.amount_cents += charge.amount_cents;
        let receipt = Receipt {
            id: format!("receipt-{}", ledger.totals.charges),
            amount_cents: charge.amount_cents,
        };
        ledger.order.push_back(charge.idempotency_key.clone());
        ledger
            .receipts
            .insert(charge.idempotency_key, receipt.clone());
        if ledger.order.len() > MAX_RECEIPTS
            && let Some(oldest) = ledger.order.pop_front()
        {
            ledger.receipts.remove(&oldest);
        }
        Ok(signed("payments", receipt))
    }

    async fn get_totals(
        &self,
        _request: Request<GetTotalsRequest>,
    ) -> Result<Response<Totals>, Status> {
        let ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(signed("payments", ledger.totals))
    }
}
