//! How a client keeps its endpoint.

use model::session::{Carrier, Persistence};

use crate::codec::field::{Invalid, Result, duration_to_message, known, optional_duration};
use crate::proto::v1;

pub(super) fn to_message(session: &Persistence) -> v1::SessionPersistence {
    use v1::session_persistence::Carrier as Wire;
    let carrier = match session.carrier {
        Carrier::Cookie => Wire::Cookie,
        Carrier::PermanentCookie => Wire::PermanentCookie,
        Carrier::Header => Wire::Header,
    };
    v1::SessionPersistence {
        name: session.name.clone(),
        carrier: carrier.into(),
        timeout: session.timeout.map(duration_to_message),
    }
}

pub(super) fn from_message(message: v1::SessionPersistence) -> Result<Persistence> {
    use v1::session_persistence::Carrier as Wire;
    if message.name.is_empty() {
        return Err(Invalid::new("name", "is empty; a cookie or header has one"));
    }
    Ok(Persistence {
        name: message.name,
        carrier: match known("carrier", message.carrier)? {
            Wire::Unspecified => return Err(Invalid::new("carrier", "is not specified")),
            Wire::Cookie => Carrier::Cookie,
            Wire::PermanentCookie => Carrier::PermanentCookie,
            Wire::Header => Carrier::Header,
        },
        timeout: optional_duration("timeout", message.timeout)?,
    })
}
