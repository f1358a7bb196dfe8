//! Small messages that many others are made of.

use std::time::Duration;

use prost::Message;
use prost_types::Any;

use crate::proto::{core, matcher};

const PREFIX: &str = "type.googleapis.com/";

/// A message in an `Any`.
pub(crate) fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("{PREFIX}{name}"),
        value: message.encode_to_vec(),
    }
}

/// A message without a field that we set.
pub(crate) fn empty(name: &str) -> Any {
    Any {
        type_url: format!("{PREFIX}{name}"),
        value: Vec::new(),
    }
}

/// Resources come over the stream that this one came over.
pub(crate) fn over_ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..core::ConfigSource::default()
    }
}

/// A span of time; what protobuf cannot hold becomes the longest that it can.
pub(crate) fn duration(duration: Duration) -> prost_types::Duration {
    // protobuf's Duration ends at 10 000 years.
    let seconds = duration.as_secs().min(315_576_000_000);
    prost_types::Duration {
        seconds: seconds as i64,
        nanos: duration.subsec_nanos() as i32,
    }
}

pub(crate) fn regex(expression: impl Into<String>) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: expression.into(),
    }
}

/// A text as an expression that takes it alone.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

pub(crate) fn address(address: &str, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: address.to_owned(),
            ipv4_compat: address == "::",
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        })),
    }
}
