//! Bounds for clients; what a message leaves out is at its default.

use model::limits::Limits;

use super::field::{Result, Within, duration_to_message, optional_duration};
use crate::proto::v1;

pub(super) fn to_message(limits: &Limits) -> v1::Limits {
    v1::Limits {
        request_header_bytes: Some(limits.request_header_bytes),
        request_header_count: Some(limits.request_header_count),
        request_target_bytes: Some(limits.request_target_bytes),
        trailers_bytes: Some(limits.trailers_bytes),
        request_head_timeout: Some(duration_to_message(limits.request_head_timeout)),
        idle_timeout: Some(duration_to_message(limits.idle_timeout)),
        body_idle_timeout: Some(duration_to_message(limits.body_idle_timeout)),
        tls_handshake_timeout: Some(duration_to_message(limits.tls_handshake_timeout)),
        max_request_body_bytes: limits.max_request_body_bytes,
        max_connections: Some(limits.max_connections),
        max_concurrent_streams: Some(limits.max_concurrent_streams),
        max_reset_streams: Some(limits.max_reset_streams),
        max_pings_per_minute: Some(limits.max_pings_per_minute),
    }
}

pub(super) fn from_message(message: Option<v1::Limits>) -> Result<Limits> {
    let Some(message) = message else {
        return Ok(Limits::default());
    };
    read(message).within("limits")
}

fn read(message: v1::Limits) -> Result<Limits> {
    let otherwise = Limits::default();
    let request_head_timeout =
        optional_duration("request_head_timeout", message.request_head_timeout)?;
    let idle_timeout = optional_duration("idle_timeout", message.idle_timeout)?;
    let body_idle_timeout = optional_duration("body_idle_timeout", message.body_idle_timeout)?;
    let tls_handshake_timeout =
        optional_duration("tls_handshake_timeout", message.tls_handshake_timeout)?;
    Ok(Limits {
        request_header_bytes: message
            .request_header_bytes
            .unwrap_or(otherwise.request_header_bytes),
        request_header_count: message
            .request_header_count
            .unwrap_or(otherwise.request_header_count),
        request_target_bytes: message
            .request_target_bytes
            .unwrap_or(otherwise.request_target_bytes),
        trailers_bytes: message.trailers_bytes.unwrap_or(otherwise.trailers_bytes),
        request_head_timeout: request_head_timeout.unwrap_or(otherwise.request_head_timeout),
        idle_timeout: idle_timeout.unwrap_or(otherwise.idle_timeout),
        body_idle_timeout: body_idle_timeout.unwrap_or(otherwise.body_idle_timeout),
        tls_handshake_timeout: tls_handshake_timeout.unwrap_or(otherwise.tls_handshake_timeout),
        max_request_body_bytes: message.max_request_body_bytes,
        max_connections: message.max_connections.unwrap_or(otherwise.max_connections),
        max_concurrent_streams: message
            .max_concurrent_streams
            .unwrap_or(otherwise.max_concurrent_streams),
        max_reset_streams: message
            .max_reset_streams
            .unwrap_or(otherwise.max_reset_streams),
        max_pings_per_minute: message
            .max_pings_per_minute
            .unwrap_or(otherwise.max_pings_per_minute),
    })
}
