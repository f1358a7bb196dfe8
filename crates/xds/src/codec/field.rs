//! Fields that several kinds share: names, addresses, ports, durations, and where one is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use model::workload::{Locality, Tunnel};

use crate::proto::v1;

/// A field that cannot be used.
#[derive(Debug)]
pub(super) struct Invalid {
    pub(super) field: String,
    pub(super) message: String,
}

pub(super) type Result<T> = std::result::Result<T, Invalid>;

impl Invalid {
    pub(super) fn new(field: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            field: field.into(),
            message: message.to_string(),
        }
    }

    fn within(mut self, parent: impl fmt::Display) -> Self {
        self.field = if self.field.is_empty() {
            parent.to_string()
        } else {
            format!("{parent}.{}", self.field)
        };
        self
    }
}

/// Puts a parent before the path of a wrong field.
pub(super) trait Within {
    fn within(self, parent: &str) -> Self;
}

impl<T> Within for Result<T> {
    fn within(self, parent: &str) -> Self {
        self.map_err(|invalid| invalid.within(parent))
    }
}

/// Reads each element of a repeated field.
pub(super) fn each<A, B>(
    field: &str,
    items: Vec<A>,
    mut read: impl FnMut(A) -> Result<B>,
) -> Result<Vec<B>> {
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| {
            read(item).map_err(|invalid| invalid.within(format_args!("{field}[{index}]")))
        })
        .collect()
}

/// A field that must be set.
pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| {
        Invalid::new(
            field,
            "is missing, or of a form that this version does not know",
        )
    })
}

/// A text with a form.
pub(super) fn parse<T>(field: &str, text: &str) -> Result<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| Invalid::new(field, error))
}

/// A value of an enum.
pub(super) fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E> {
    E::try_from(value).map_err(|_| {
        Invalid::new(
            field,
            format!("has the value {value}, which this version does not know"),
        )
    })
}

/// A port's number.
pub(super) fn port(field: &str, number: u32) -> Result<u16> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| {
            Invalid::new(
                field,
                format!("{number} is not a port; ports are 1 to 65535"),
            )
        })
}

/// A port's number where there is one.
pub(super) fn optional_port(field: &str, number: Option<u32>) -> Result<Option<u16>> {
    number.map(|number| port(field, number)).transpose()
}

pub(super) fn addresses_to_message(addresses: &[IpAddr]) -> Vec<Vec<u8>> {
    addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        })
        .collect()
}

pub(super) fn addresses(field: &str, list: Vec<Vec<u8>>) -> Result<Vec<IpAddr>> {
    each(field, list, |bytes| {
        if let Ok(v4) = <[u8; 4]>::try_from(bytes.as_slice()) {
            Ok(v4.into())
        } else if let Ok(v6) = <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(v6.into())
        } else {
            let message = format!("has {} bytes; an IP address has 4 or 16", bytes.len());
            Err(Invalid::new("", message))
        }
    })
}

/// Longer durations than protobuf can say are cut to its longest.
pub(super) fn duration_to_message(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 999_999_999,
    })
}

pub(super) fn duration(field: &str, value: prost_types::Duration) -> Result<Duration> {
    Duration::try_from(value).map_err(|_| Invalid::new(field, "is a negative duration"))
}

pub(super) fn optional_duration(
    field: &str,
    value: Option<prost_types::Duration>,
) -> Result<Option<Duration>> {
    value.map(|value| duration(field, value)).transpose()
}

pub(super) fn locality_to_message(locality: &Locality) -> v1::Locality {
    v1::Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
    }
}

pub(super) fn locality(message: Option<v1::Locality>) -> Locality {
    message.map_or_else(Locality::default, |locality| Locality {
        region: locality.region,
        zone: locality.zone,
    })
}

/// No tunnel is no message; a message without a form that is known is refused.
pub(super) fn tunnel_to_message(tunnel: Tunnel) -> Option<v1::Tunnel> {
    use v1::tunnel::Form;
    let form = match tunnel {
        Tunnel::None => return None,
        Tunnel::Tulle { port } => Form::Tulle(port.into()),
        Tunnel::Hbone { port } => Form::Hbone(port.into()),
    };
    Some(v1::Tunnel { form: Some(form) })
}

pub(super) fn tunnel(field: &str, message: Option<v1::Tunnel>) -> Result<Tunnel> {
    use v1::tunnel::Form;
    let Some(message) = message else {
        return Ok(Tunnel::None);
    };
    Ok(match required(field, message.form)? {
        Form::Tulle(number) => Tunnel::Tulle {
            port: port(field, number)?,
        },
        Form::Hbone(number) => Tunnel::Hbone {
            port: port(field, number)?,
        },
    })
}

/// A map whose keys are ports.
pub(super) fn by_port<A, B>(
    field: &str,
    map: BTreeMap<u32, A>,
    mut read: impl FnMut(A) -> Result<B>,
) -> Result<BTreeMap<u16, B>> {
    map.into_iter()
        .map(|(number, value)| {
            let read = port("", number).and_then(|port| Ok((port, read(value)?)));
            read.map_err(|invalid| invalid.within(format_args!("{field}[{number}]")))
        })
        .collect()
}

/// Whether a name occurs twice.
pub(super) fn twice<'a, T: Ord + 'a>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = std::collections::BTreeSet::new();
    for item in items {
        if seen.contains(&item) {
            return Some(item);
        }
        seen.insert(item);
    }
    None
}
