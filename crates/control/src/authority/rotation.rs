//! The control plane's own certificate, renewed before it ends and swapped without touching a
//! connection; and the intermediate, looked at now and then.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::ca::{Authority as Signer, DEFAULT_TTL};
use identity::control_id;
use identity::tls::Credentials;

/// After a failure.
const RETRY: Duration = Duration::from_secs(10);
/// Never sleeps longer: a clock that is set forward is noticed.
const LOOK: Duration = Duration::from_mins(1);

/// Keeps the server's certificate fresh for as long as it is polled.
pub async fn keep_own_certificate(signer: Arc<Signer>, credentials: Arc<Credentials>) {
    let mut due = credentials.svid().renew_at(rand::random());
    loop {
        let wait = due
            .duration_since(SystemTime::now())
            .unwrap_or(Duration::ZERO);
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(LOOK)).await;
            continue;
        }
        match renew(&signer, &credentials) {
            Ok(()) => {
                due = credentials.svid().renew_at(rand::random());
                tracing::debug!("the control plane's own certificate is renewed");
            }
            Err(error) => {
                tracing::error!(
                    "the control plane's own certificate cannot be renewed, trying again: {error}"
                );
                due = SystemTime::now() + RETRY;
            }
        }
    }
}

fn renew(signer: &Signer, credentials: &Credentials) -> Result<(), Box<dyn std::error::Error>> {
    let now = SystemTime::now();
    if signer.renew_if_due(now)? {
        tracing::info!("the intermediate certificate is renewed");
    }
    let svid = signer.issue(&control_id(signer.trust_domain()), DEFAULT_TTL, now)?;
    credentials.set_svid(svid);
    Ok(())
}
