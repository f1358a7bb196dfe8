//! Service accounts' tokens: how a pod proves who it is without a join token.
//!
//! Kubernetes puts a token for the audience [`AUDIENCE`] into the pod and replaces it before it
//! ends; the API server says whose it is (TokenReview). Who answers is decided where the control
//! plane starts: off Kubernetes nobody does, and such tokens are refused.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// For whom the tokens must be made.
pub const AUDIENCE: &str = "tulle";

/// Longer ones are refused unseen; the API server's have about a kilobyte.
const MAX_TOKEN: usize = 16 * 1024;

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Account {
    /// From the user name that Kubernetes gives a service account.
    pub fn from_username(name: &str) -> Option<Self> {
        let (namespace, name) = name
            .strip_prefix("system:serviceaccount:")?
            .split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Why a service account's token was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Nobody here can say whose it is.
    #[error(
        "this control plane takes no tokens of service accounts, since it does not run with --store kubernetes; use a join token (`tulle token create`)"
    )]
    NotHere,
    /// The API server says no.
    #[error(
        "Kubernetes does not recognise the service account's token for the audience \"{AUDIENCE}\": {0}"
    )]
    Refused(String),
    /// The API server says nothing.
    #[error("Kubernetes could not be asked whose the token is: {0}; try again")]
    Unavailable(String),
}

type Answer = Pin<Box<dyn Future<Output = Result<Account, AccountError>> + Send>>;

/// Says whose a service account's token is.
#[derive(Clone)]
pub struct Reviewer(Arc<dyn Fn(String) -> Answer + Send + Sync>);

impl Reviewer {
    /// Asks `review`, which does not fail for good where it cannot ask.
    pub fn new<F, R>(review: F) -> Self
    where
        F: Fn(String) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Account, AccountError>> + Send + 'static,
    {
        Self(Arc::new(move |token| Box::pin(review(token))))
    }

    pub(super) async fn review(&self, token: &str) -> Result<Account, AccountError> {
        (self.0)(token.to_owned()).await
    }
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reviewer")
    }
}

/// Whether a text looks like a JSON Web Token, as service accounts' tokens are; a join token has
/// four parts.
pub(super) fn is_account_token(text: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= MAX_TOKEN
        && text.starts_with("ey")
        && text.split('.').count() == 3
        && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_service_accounts_are_accounts() {
        let account = Account::from_username("system:serviceaccount:shop:web-tulle");
        assert_eq!(
            account,
            Some(Account {
                namespace: "shop".into(),
                name: "web-tulle".into()
            })
        );
        for other in [
            "system:node:n1",
            "admin",
            "system:serviceaccount:",
            "system:serviceaccount:shop:",
            "system:serviceaccount:a:b:c",
        ] {
            assert_eq!(Account::from_username(other), None, "{other}");
        }
    }

    #[test]
    fn join_tokens_are_told_from_account_tokens() {
        assert!(is_account_token(
            "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
        ));
        for other in ["", "tulle1.a.b.c", "ey.a", "ey..a", "ey.a b.c", "xy.a.b"] {
            assert!(!is_account_token(other), "{other}");
        }
        assert!(!is_account_token(&format!(
            "ey.{}.a",
            "b".repeat(MAX_TOKEN)
        )));
    }
}
