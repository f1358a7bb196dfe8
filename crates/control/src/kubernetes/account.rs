//! Whose a service account's token is: TokenReview.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::timeout;

use crate::authority::account::{AUDIENCE, Account, AccountError, Reviewer};

/// An answer of the API server is waited for as long.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks this API server.
pub fn reviewer(client: Client) -> Reviewer {
    Reviewer::new(move |token| review(client.clone(), token))
}

async fn review(client: Client, token: String) -> Result<Account, AccountError> {
    let api: Api<TokenReview> = Api::all(client);
    let question = TokenReview {
        metadata: ObjectMeta::default(),
        spec: TokenReviewSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            token,
        },
        status: None,
    };
    let asked = timeout(ANSWER, api.create(&PostParams::default(), &question)).await;
    match asked {
        Ok(Ok(answer)) => account(answer.status.unwrap_or_default()),
        Ok(Err(error)) => Err(AccountError::Unavailable(error.to_string())),
        Err(_) => Err(AccountError::Unavailable(format!(
            "no answer within {} s",
            ANSWER.as_secs()
        ))),
    }
}

/// The answer. An API server that knows nothing of audiences says nothing of them: its yes is worth
/// nothing here, since the token may be meant for itself.
fn account(status: TokenReviewStatus) -> Result<Account, AccountError> {
    let refused = |why: String| Err(AccountError::Refused(why));
    if status.authenticated != Some(true) {
        return refused(status.error.unwrap_or_else(|| "it is not valid".to_owned()));
    }
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return refused("it was made for another audience".to_owned());
    }
    let name = status
        .user
        .and_then(|user| user.username)
        .unwrap_or_default();
    match Account::from_username(&name) {
        Some(account) => Ok(account),
        None => refused(format!(
            "it is not a service account's, but of \"{}\"",
            name.chars().take(100).collect::<String>()
        )),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status(audiences: &[&str], user: &str) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(audiences.iter().map(|a| (*a).to_owned()).collect()),
            user: Some(UserInfo {
                username: Some(user.to_owned()),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    #[test]
    fn only_a_service_account_with_a_token_for_this_audience_is_taken() {
        const USER: &str = "system:serviceaccount:shop:web-tulle";
        let good = account(status(&["tulle"], USER)).expect("good");
        assert_eq!((&*good.namespace, &*good.name), ("shop", "web-tulle"));
        for (answer, says) in [
            (
                status(&["https://kubernetes.default.svc"], USER),
                "audience",
            ),
            (status(&[], USER), "audience"),
            (status(&["tulle"], "system:node:n1"), "system:node:n1"),
            (
                TokenReviewStatus {
                    error: Some("token expired".to_owned()),
                    authenticated: Some(false),
                    ..status(&["tulle"], USER)
                },
                "token expired",
            ),
        ] {
            let error = account(answer).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
