//! Certificates and join tokens: who gets which identity.
//!
//! A workload's first certificate is earned with a join token, which says what identity it is
//! good for, or on Kubernetes with its service account's; later ones with the certificate before. What a signing request itself asks to be
//! called is ignored. Whatever is refused is refused with its own reason, and counted.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::ca::{Authority as Signer, MAX_TTL, SignError};
use identity::control_id;
use identity::token::{InvalidToken, JoinToken};
use model::SpiffeId;
use tonic::{Request, Response, Status};
use xds::codec::trust_bundle_to_message;
use xds::proto::v1::certificate_authority_server::CertificateAuthority;
use xds::proto::v1::{SignRequest, SignResponse};

use crate::caller::{Caller, Peer};
use crate::change::Also;
use crate::limit::Limiter;
use crate::metrics::Metrics;
use crate::state::now;
use crate::store::token::{self, Token};
use crate::store::{Store, StoreError};

pub mod account;
mod rotation;

#[cfg(test)]
mod tests;

use account::{AccountError, Reviewer};
pub use rotation::keep_own_certificate;

/// Longest life of a join token.
pub const MAX_TOKEN_TTL: Duration = Duration::from_hours(30 * 24);
/// Life of a join token that names none.
pub const DEFAULT_TOKEN_TTL: Duration = Duration::from_hours(1);

/// Why a join token was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not a token at all.
    #[error(transparent)]
    Invalid(#[from] InvalidToken),
    /// For another mesh.
    #[error(
        "the join token is of another mesh: its pin names another root certificate; make one here with `tulle token create`"
    )]
    Foreign,
    /// Never issued, or long forgotten.
    #[error(
        "the join token is not known here: it was never issued by this control plane, or it ended long ago; make another with `tulle token create`"
    )]
    Unknown,
    /// The id is right, the secret is not.
    #[error("the join token is forged: its secret is not the one that was issued")]
    Forged,
    /// Too late.
    #[error("the join token expired {0} s ago; make another with `tulle token create`")]
    Expired(u64),
    /// Used already.
    #[error(
        "the join token was used already, {0} s ago; each is good once: make another with `tulle token create`"
    )]
    Replayed(u64),
    /// Good for something else.
    #[error("the join token is good for {allowed}, not for {wanted}")]
    Scope {
        /// Namespace and service account it was issued for.
        allowed: String,
        /// What was asked for.
        wanted: String,
    },
    /// A service account's token, and not good.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TokenError {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "token_malformed",
            Self::Foreign => "token_foreign",
            Self::Unknown => "token_unknown",
            Self::Forged => "token_forged",
            Self::Expired(_) => "token_expired",
            Self::Replayed(_) => "token_replayed",
            Self::Scope { .. } => "token_scope",
            Self::Account(AccountError::Unavailable(_)) => "account_unavailable",
            Self::Account(_) => "account_refused",
            Self::Store(_) => "store",
        }
    }
}

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        let message = error.to_string();
        match error {
            TokenError::Invalid(_) => Self::invalid_argument(message),
            TokenError::Scope { .. } => Self::permission_denied(message),
            TokenError::Store(_) | TokenError::Account(AccountError::Unavailable(_)) => {
                Self::unavailable(message)
            }
            _ => Self::unauthenticated(message),
        }
    }
}

/// Signs certificates and makes join tokens. Shared by the gRPC services and the HTTP API.
pub struct Authority {
    signer: Arc<Signer>,
    store: Store,
    metrics: Metrics,
    by_identity: Limiter<SpiffeId>,
    by_address: Limiter<Option<IpAddr>>,
    /// Who says whose a service account's token is; set once, where there is Kubernetes.
    accounts: OnceLock<Reviewer>,
}

impl Authority {
    /// An authority over the CA's keys and the store's tokens.
    pub fn new(signer: Arc<Signer>, store: Store, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            signer,
            store,
            metrics,
            // A replica set that starts together shares an identity.
            by_identity: Limiter::new(200, 5.0),
            by_address: Limiter::new(500, 50.0),
            accounts: OnceLock::new(),
        })
    }

    /// From now on service accounts' tokens are taken, and this says whose they are.
    pub fn take_accounts(&self, reviewer: Reviewer) {
        // A second one would be the same Kubernetes.
        let _ = self.accounts.set(reviewer);
    }

    /// The identity that a token earns, and the join token's id where it is one, to be spent.
    async fn earned(&self, text: &str) -> Result<(SpiffeId, Option<String>), Status> {
        let text = text.trim();
        if !account::is_account_token(text) {
            let record = self.check_token(text).await;
            let record = record.map_err(|error| self.refuse(error))?;
            let id = self.identity(&record.namespace, &record.service_account)?;
            return Ok((id, Some(record.id)));
        }
        let reviewed = match self.accounts.get() {
            Some(reviewer) => reviewer.review(text).await,
            None => Err(AccountError::NotHere),
        };
        let account = reviewed.map_err(|error| self.refuse(error.into()))?;
        Ok((self.identity(&account.namespace, &account.name)?, None))
    }

    /// The CA.
    pub fn signer(&self) -> &Arc<Signer> {
        &self.signer
    }

    /// Makes a token that is good once, for one identity. Keeping it is the caller's: write the
    /// record, or nobody can use it.
    pub fn make_token(
        &self,
        namespace: &str,
        service_account: &str,
        ttl: Duration,
        by: &str,
    ) -> Result<(JoinToken, Token), InvalidToken> {
        let token = JoinToken::generate(&self.signer.root_pin())?;
        let created = now();
        let record = Token {
            id: token.id().to_owned(),
            hash: token.hash(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            created,
            created_by: by.to_owned(),
            expires: created + ttl.clamp(Duration::from_secs(1), MAX_TOKEN_TTL).as_secs(),
            used: None,
        };
        Ok((token, record))
    }

    /// Makes a token and keeps its record.
    pub async fn issue_token(
        &self,
        namespace: &str,
        service_account: &str,
        ttl: Duration,
        by: &str,
    ) -> Result<(JoinToken, Token), TokenError> {
        let (token, record) = self.make_token(namespace, service_account, ttl, by)?;
        let kept = record.clone();
        self.store.write(move |t| token::add(t, &kept)).await?;
        Ok((token, record))
    }

    /// Checks a token without using it up.
    pub async fn check_token(&self, text: &str) -> Result<Token, TokenError> {
        let presented: JoinToken = text.trim().parse()?;
        if presented.pin() != self.signer.root_pin() {
            return Err(TokenError::Foreign);
        }
        let id = presented.id().to_owned();
        let found = self.store.write(move |t| token::find(t, &id)).await?;
        let record = found.ok_or(TokenError::Unknown)?;
        // The secret first: what became of a token is told only to who had it.
        if !presented.matches(&record.hash) {
            return Err(TokenError::Forged);
        }
        let at = now();
        if let Some(used) = record.used {
            return Err(TokenError::Replayed(at.saturating_sub(used)));
        }
        if at >= record.expires {
            return Err(TokenError::Expired(at - record.expires));
        }
        Ok(record)
    }

    /// Uses a token up; fails when somebody was quicker.
    pub async fn spend(&self, id: &str, by: &str) -> Result<(), TokenError> {
        let (id, by) = (id.to_owned(), by.to_owned());
        let first = self
            .store
            .write(move |t| token::spend(t, &id, now(), &by))
            .await?;
        if first {
            Ok(())
        } else {
            Err(TokenError::Replayed(0))
        }
    }

    /// The use of a token, to be written with what it was used for.
    pub fn spending(id: &str, by: &str) -> Also {
        Also::Spend {
            id: id.to_owned(),
            by: by.to_owned(),
            now: now(),
        }
    }

    /// The identity of a service account in this mesh.
    pub fn identity(&self, namespace: &str, service_account: &str) -> Result<SpiffeId, Status> {
        SpiffeId::of_service_account(self.signer.trust_domain(), namespace, service_account)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Counts a refusal on its way out.
    pub fn refuse(&self, error: TokenError) -> Status {
        self.metrics.refused(error.reason());
        tracing::warn!(reason = error.reason(), "token refused: {error}");
        error.into()
    }

    /// Slows down an address that asks too often.
    pub fn limit(&self, peer: Option<&Peer>) -> Result<(), Status> {
        let address = peer.and_then(|p| p.remote).map(|a| a.ip());
        self.by_address
            .take(address)
            .map_err(|wait| self.too_often("this address", wait))
    }

    fn too_often(&self, who: &str, wait: Duration) -> Status {
        self.metrics.refused("rate_limited");
        Status::resource_exhausted(format!(
            "{who} asks too often; try again in {:.1} s",
            wait.as_secs_f64()
        ))
    }

    async fn sign(
        &self,
        caller: &Caller,
        peer: Option<&Peer>,
        request: SignRequest,
    ) -> Result<SignResponse, Status> {
        self.limit(peer)?;
        let (id, spend) = match (&request.join_token, caller) {
            (Some(text), _) => self.earned(text).await?,
            (None, Caller::Workload(id)) => (id.clone(), None),
            (None, _) => {
                self.metrics.refused("no_proof");
                return Err(Status::unauthenticated(
                    "a certificate is signed for a join token, or for a caller that has a certificate of this mesh; this request had neither",
                ));
            }
        };
        if id == control_id(self.signer.trust_domain()) {
            self.metrics.refused("reserved_identity");
            let message = format!(
                "{id} is the control plane's own identity, which nobody else gets: run this as another service account"
            );
            tracing::warn!("certificate not issued: {message}");
            return Err(Status::permission_denied(message));
        }
        self.by_identity
            .take(id.clone())
            .map_err(|wait| self.too_often(id.as_str(), wait))?;
        let ttl = ttl(request.requested_ttl.as_ref());
        let chain = self
            .signer
            .sign(&request.csr_der, &id, ttl, SystemTime::now())
            .map_err(|error| self.unsigned(&error))?;
        // After signing: a broken request does not cost its sender the token.
        if let Some(token) = spend {
            self.spend(&token, id.as_str())
                .await
                .map_err(|error| self.refuse(error))?;
        }
        self.metrics.issued.inc();
        tracing::info!(%id, renewal = matches!(caller, Caller::Workload(_)), "certificate issued");
        Ok(SignResponse {
            chain_der: chain,
            trust_bundle: Some(trust_bundle_to_message(&self.signer.trust_bundle())),
        })
    }

    fn unsigned(&self, error: &SignError) -> Status {
        let message = error.to_string();
        let (reason, status) = match error {
            SignError::Malformed(_) | SignError::NotSignedByItsKey | SignError::KeyKind => {
                ("bad_request", Status::invalid_argument(message))
            }
            SignError::ForeignId { .. } => ("foreign_identity", Status::permission_denied(message)),
            SignError::AuthorityExpired(_) => {
                ("authority_expired", Status::failed_precondition(message))
            }
            _ => ("internal", Status::internal(message)),
        };
        self.metrics.refused(reason);
        tracing::warn!(reason, "certificate not issued: {error}");
        status
    }
}

/// Zero, which is the CA's default, where none is asked for.
fn ttl(requested: Option<&prost_types::Duration>) -> Duration {
    requested
        .and_then(|d| Duration::try_from(*d).ok())
        .unwrap_or(Duration::ZERO)
        .min(MAX_TTL)
}

/// Seconds since 1970 as RFC 3339.
pub fn rfc3339(seconds: u64) -> String {
    time::OffsetDateTime::from(UNIX_EPOCH + Duration::from_secs(seconds.min(1 << 37)))
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

/// The gRPC service.
#[derive(Clone)]
pub struct AuthorityService(pub Arc<Authority>);

#[tonic::async_trait]
impl CertificateAuthority for AuthorityService {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let peer = request.extensions().get::<Peer>().copied();
        let response = self
            .0
            .sign(&caller, peer.as_ref(), request.into_inner())
            .await?;
        Ok(Response::new(response))
    }
}
