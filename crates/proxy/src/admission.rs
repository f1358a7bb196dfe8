//! Whether a destination is sent one more request, or has enough of them.
//!
//! Two limits on requests in flight from this proxy: the policy's own (`connections.maxRequests`) and
//! the one that finds itself (`adaptiveConcurrency`). Of both, those that are less critical may use up
//! only a share, where the policy says so (`loadShedding`): so they are refused first.

use std::sync::atomic::Ordering;

use model::Reason;
use model::overload::{Criticality, LoadShedding};
use policy::effective::Effective;
use wire::Fields;

use crate::destination::Destination;
use crate::error::Failure;

/// Refuses a request that would be one too many.
pub(crate) fn admit(
    destination: &Destination,
    policy: &Effective,
    fields: &Fields,
) -> Result<(), Failure> {
    let live = &destination.live;
    let held = live.requests.load(Ordering::Relaxed);
    let shedding = policy.shedding.as_deref();
    let shedding = shedding.map(|shedding| (shedding, criticality(shedding, fields)));
    let fits = |limit| held < shedding.map_or(limit, |(s, class)| s.share(class, limit));
    let refused = |reason, limit: u32, why: &str| {
        let name = &destination.name;
        let mut details = format!("{held} requests to {name} are in flight, {why} {limit}");
        if let Some((shedding, class)) = shedding {
            let (share, class) = (shedding.share(class, limit), class.as_str());
            details.extend([
                ", of which those that are ",
                class,
                " may be ",
                &share.to_string(),
            ]);
        }
        Err(Failure::new(reason, details))
    };
    if !fits(policy.max_requests) {
        let why = "the limit (connections.maxRequests) is";
        return refused(Reason::CircuitOpen, policy.max_requests, why);
    }
    if let Some(settings) = &policy.adaptive {
        let limit = live.gradient(settings).limit();
        if !fits(limit) {
            let why = "as soon as they are answered now there may be";
            return refused(Reason::Overloaded, limit, why);
        }
    }
    Ok(())
}

/// How critical a request says it is.
fn criticality(shedding: &LoadShedding, fields: &Fields) -> Criticality {
    let said = fields.get_str(shedding.header.as_str());
    said.and_then(|said| Criticality::of(&said.trim().to_ascii_lowercase()))
        .unwrap_or(shedding.unsaid)
}

#[cfg(test)]
mod tests {
    use model::overload::AdaptiveConcurrency;
    use model::service::Service;

    use super::*;

    fn destination(held: u32) -> Destination {
        let destination = Destination::new(Service {
            name: "shop/s".parse().expect("valid"),
            addresses: Vec::new(),
            ports: Vec::new(),
            headless: false,
            near: false,
        });
        destination.live.requests.store(held, Ordering::Relaxed);
        destination
    }

    fn saying(criticality: &str) -> Fields {
        let mut fields = Fields::new();
        fields.append("x-request-criticality", criticality.as_bytes());
        fields
    }

    #[test]
    fn those_that_are_less_critical_are_refused_first() {
        let mut policy = Effective {
            max_requests: 100,
            ..Effective::default()
        };
        let reason = |policy: &Effective, held, said: &str| {
            let result = admit(&destination(held), policy, &saying(said));
            result.err().map(|failure| failure.reason)
        };
        // What a request says is of no account where nobody asked for it.
        assert_eq!(reason(&policy, 99, "sheddable"), None);
        assert_eq!(
            reason(&policy, 100, "critical-plus"),
            Some(Reason::CircuitOpen)
        );
        policy.shedding = Some(Box::new(LoadShedding {
            header: LoadShedding::HEADER,
            unsaid: Criticality::Critical,
            shares: LoadShedding::SHARES,
        }));
        for (said, most) in [
            ("critical-plus", 100),
            (" Critical", 90),
            ("", 90),
            ("nonsense", 90),
            ("sheddable-plus", 75),
            ("sheddable", 50),
        ] {
            assert_eq!(reason(&policy, most - 1, said), None, "{said}");
            assert_eq!(
                reason(&policy, most, said),
                Some(Reason::CircuitOpen),
                "{said}"
            );
        }
    }

    #[test]
    fn the_limit_that_finds_itself_holds_beside_the_other() {
        let policy = Effective {
            adaptive: Some(Box::new(AdaptiveConcurrency::default())),
            ..Effective::default()
        };
        let at = |held| admit(&destination(held), &policy, &Fields::new());
        assert!(at(2).is_ok());
        let failure = at(3).expect_err("more than the lowest limit, where nothing is known yet");
        assert_eq!(failure.reason, Reason::Overloaded);
        assert!(failure.details.contains("shop/s"), "{}", failure.details);
    }
}
