//! Getting a certificate from the control plane, without its messages: for proxies, which know
//! nothing of protobuf.

use std::time::Duration;

use model::mesh::TrustBundle;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::CertificateAuthorityClient;
use crate::codec;
use crate::proto::v1::SignRequest;

/// For one attempt.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate as it was issued.
#[derive(Debug)]
pub struct Signed {
    /// Certificates in DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Whom to trust.
    pub bundle: TrustBundle,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The control plane answered with an error, or did not answer.
    #[error("{}", .0.message())]
    Status(Status),
    /// What it sent cannot be used.
    #[error("the control plane's answer cannot be used")]
    Answer(#[from] codec::DecodeError),
    /// Something went wrong on this side.
    #[error("{0}")]
    Local(String),
}

impl SignError {
    /// Whether trying again is of no use: the token is wrong, used or expired.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Status(status) => matches!(
                status.code(),
                Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument
            ),
            Self::Answer(_) => false,
            Self::Local(_) => true,
        }
    }
}

/// Has a certificate signing request signed: with a join token the first time, then by the identity
/// that the channel's connection proves. `ttl` zero means what the authority finds right.
pub async fn sign(
    channel: Channel,
    csr_der: Vec<u8>,
    join_token: Option<&str>,
    ttl: Duration,
) -> Result<Signed, SignError> {
    let mut request = tonic::Request::new(SignRequest {
        csr_der,
        requested_ttl: prost_types::Duration::try_from(ttl).ok(),
        join_token: join_token.map(str::to_owned),
    });
    request.set_timeout(TIMEOUT);
    let response = CertificateAuthorityClient::new(channel)
        .sign(request)
        .await
        .map_err(SignError::Status)?
        .into_inner();
    let bundle = response.trust_bundle.unwrap_or_default();
    Ok(Signed {
        chain: response.chain_der,
        bundle: codec::trust_bundle_from_message(bundle)?,
    })
}
