//! What is known of proxies, as status says it: whether they have in force what an object leads to,
//! and where a Gateway can be reached.

use config::kind::gateway_class::SUPPORTED_FEATURES;
use config::status::{Live, Verdict};
use config::translate::Status;
use config::{ObjectKey, ObjectKind};

use crate::distribute::Programmed;
use crate::state::State;

/// Of a Gateway, a `ListenerSet` or a GatewayClass all that Gateway API asks for; of other kinds
/// nothing.
pub fn live(state: &State, key: &ObjectKey, said: &Status) -> Live {
    let mut live = Live::default();
    match key.kind {
        ObjectKind::GatewayClass if said.conditions.iter().any(|c| !c.foreign) => {
            live.features = SUPPORTED_FEATURES;
        }
        ObjectKind::Gateway | ObjectKind::ListenerSet => listeners(state, key, said, &mut live),
        _ => {}
    }
    live
}

fn listeners(state: &State, key: &ObjectKey, said: &Status, live: &mut Live) {
    let distribution = state.distribution();
    let mut all = Vec::new();
    for listener in &said.listeners {
        if let Some(resource) = &listener.resource {
            let programmed = distribution.programmed_resources(std::slice::from_ref(resource));
            live.listeners
                .insert(listener.name.clone(), verdict(programmed));
            all.push(resource.clone());
        }
    }
    if key.kind == ObjectKind::Gateway {
        let published = state.published();
        let reach = published.find(key);
        live.addresses = reach.as_ref().map(|reach| {
            let addresses = reach.addresses.iter();
            addresses
                .filter_map(|a| serde_json::to_value(a).ok())
                .collect()
        });
        let unreachable = match &reach {
            Some(reach) => reach.problem.as_ref().map(|problem| Verdict {
                status: "False",
                reason: problem.reason,
                message: problem.message.clone(),
            }),
            None => published.is_required().then(|| Verdict {
                status: "False",
                reason: "Pending",
                message: "its proxies are not started yet".to_owned(),
            }),
        };
        if let Some(unreachable) = unreachable {
            live.programmed = Some(unreachable);
            return;
        }
    }
    if !all.is_empty() {
        live.programmed = Some(verdict(distribution.programmed_resources(&all)));
    }
}

/// In Gateway API's words.
fn verdict(programmed: Programmed) -> Verdict {
    let (status, reason) = match programmed.reason {
        "Programmed" => ("True", "Programmed"),
        "Rejected" => ("False", "Invalid"),
        "NotRequested" => ("Unknown", "Pending"),
        _ => ("False", "Pending"),
    };
    Verdict {
        status,
        reason,
        message: programmed.message,
    }
}
