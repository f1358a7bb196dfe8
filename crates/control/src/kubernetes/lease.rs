//! Which replica writes: the holder of the Lease `tulle-control`.
//!
//! As Kubernetes' own components do it (client-go's leader election): whoever holds the Lease
//! renews it; another may take it when it has not been renewed for its whole duration, measured by
//! the clock of the one who waits, from when it last saw it change. A holder that cannot renew
//! gives up before another may take over, so that at most one writes.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::Cluster;

/// The Lease's name.
pub const NAME: &str = "tulle-control";
/// How long a Lease holds without being renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for as long gives up.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often it is renewed, or looked at.
const RENEW: Duration = Duration::from_secs(4);
/// An answer of the API server is waited for as long.
const ANSWER: Duration = Duration::from_secs(5);

/// What is to be done about a Lease as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is none: make it.
    Create,
    /// It is ours.
    Renew,
    /// It is nobody's any more.
    Take,
    /// Somebody else has it.
    Wait,
}

/// What a candidate remembers.
#[derive(Debug)]
struct Candidate {
    identity: String,
    /// What the Lease said when it last changed, and when that was seen.
    seen: Option<(LeaseSpec, Instant)>,
    /// When it was last renewed by us.
    renewed: Option<Instant>,
}

impl Candidate {
    fn decide(&mut self, lease: Option<&LeaseSpec>, now: Instant) -> Step {
        let Some(lease) = lease else {
            return Step::Create;
        };
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != lease) {
            self.seen = Some((lease.clone(), now));
        }
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            return Step::Renew;
        }
        let seconds = u64::try_from(lease.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let over = now >= since + Duration::from_secs(seconds);
        if holder.is_empty() || over {
            Step::Take
        } else {
            Step::Wait
        }
    }

    /// The Lease as it is to be.
    fn wanted(&self, old: Option<&LeaseSpec>, step: Step) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        let kept = old.filter(|_| step == Step::Renew);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: kept
                .and_then(|old| old.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(step == Step::Take)),
            ..LeaseSpec::default()
        }
    }
}

/// Tries to hold the Lease until the future is dropped; says in `leader` whether it does.
pub async fn hold(cluster: Cluster, identity: String, leader: watch::Sender<bool>) {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut candidate = Candidate {
        identity,
        seen: None,
        renewed: None,
    };
    let mut complained = false;
    loop {
        let held = timeout(ANSWER, attempt(&api, &mut candidate)).await;
        let now = Instant::now();
        match held {
            Ok(Ok(held)) => {
                candidate.renewed = held.then_some(now);
                if complained {
                    tracing::info!(
                        "the Lease {}/{NAME} can be reached again",
                        cluster.namespace
                    );
                }
                complained = false;
                set(&leader, held, &cluster);
            }
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {} s", ANSWER.as_secs()),
                };
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(
                        "the Lease {}/{NAME} cannot be kept: {why}; no status is written without it: check that the namespace exists and that the service account may write leases there",
                        cluster.namespace
                    );
                }
                if candidate.renewed.is_none_or(|at| now >= at + GIVE_UP) {
                    set(&leader, false, &cluster);
                }
            }
        }
        // The next attempt may take ANSWER: RENEW + ANSWER stays below GIVE_UP.
        tokio::time::sleep(RENEW).await;
        if candidate
            .renewed
            .is_some_and(|at| Instant::now() >= at + GIVE_UP)
        {
            set(&leader, false, &cluster);
        }
    }
}

fn set(leader: &watch::Sender<bool>, holds: bool, cluster: &Cluster) {
    let changed = leader.send_if_modified(|held| std::mem::replace(held, holds) != holds);
    if changed && holds {
        tracing::info!(
            "holds the Lease {}/{NAME}: this replica writes status",
            cluster.namespace
        );
    } else if changed {
        tracing::info!(
            "does not hold the Lease {}/{NAME} any more",
            cluster.namespace
        );
    }
}

/// One look at the Lease and what follows from it; whether it is ours then.
async fn attempt(api: &Api<Lease>, candidate: &mut Candidate) -> kube::Result<bool> {
    let lease = api.get_opt(NAME).await?;
    let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
    let nothing = LeaseSpec::default();
    let seen = lease.as_ref().map(|_| spec.unwrap_or(&nothing));
    let step = candidate.decide(seen, Instant::now());
    let wanted = candidate.wanted(seen, step);
    let parameters = PostParams::default();
    let written = match (step, lease) {
        (Step::Wait, _) => return Ok(false),
        (_, Some(mut lease)) => {
            lease.spec = Some(wanted);
            // With the resource version that was read: of two that try, one gets a conflict.
            api.replace(NAME, &parameters, &lease).await
        }
        (_, None) => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(wanted),
            };
            api.create(&parameters, &lease).await
        }
    };
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the Lease back, so that nobody has to wait for its end. As far as it can be done quickly.
pub async fn release(cluster: &Cluster, identity: &str) {
    let api: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let give_back = async {
        let Some(mut lease) = api.get_opt(NAME).await? else {
            return Ok(());
        };
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(identity)
        {
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            api.replace(NAME, &PostParams::default(), &lease).await?;
        }
        Ok(())
    };
    let given: Result<kube::Result<()>, _> = timeout(Duration::from_secs(1), give_back).await;
    match given {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the Lease could not be given back"),
        Err(_) => tracing::debug!("the Lease could not be given back in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, renewal: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewal).expect("a time"))),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    fn candidate() -> Candidate {
        Candidate {
            identity: "me".to_owned(),
            seen: None,
            renewed: None,
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_was_not_renewed_for_its_whole_duration() {
        let mut me = candidate();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(me.decide(None, at(0)), Step::Create);
        // The times that others write do not count: their clocks may be wrong.
        assert_eq!(me.decide(Some(&held_by("other", 0)), at(1)), Step::Wait);
        assert_eq!(me.decide(Some(&held_by("other", 0)), at(15)), Step::Wait);
        assert_eq!(me.decide(Some(&held_by("other", 1)), at(15)), Step::Wait);
        assert_eq!(me.decide(Some(&held_by("other", 1)), at(29)), Step::Wait);
        assert_eq!(me.decide(Some(&held_by("other", 1)), at(30)), Step::Take);
        assert_eq!(me.decide(Some(&held_by("me", 2)), at(31)), Step::Renew);
        assert_eq!(me.decide(Some(&held_by("", 3)), at(32)), Step::Take);
    }

    #[test]
    fn who_takes_a_lease_counts_and_who_renews_it_does_not() {
        let me = candidate();
        let old = held_by("other", 0);
        let taken = me.wanted(Some(&old), Step::Take);
        assert_eq!(taken.holder_identity.as_deref(), Some("me"));
        assert_eq!(taken.lease_transitions, Some(4));
        let renewed = me.wanted(Some(&taken), Step::Renew);
        assert_eq!(renewed.lease_transitions, Some(4));
        assert_eq!(renewed.acquire_time, taken.acquire_time);
    }
}
