//! Matches that no request can ever meet, because of what requests are by the time they are routed:
//! their paths are in normal form, and fields that concern one connection only are consumed.

use model::route::{HeaderMatch, Match, PathMatch, RouteKind, ValueMatch};

use crate::path;

/// Why a match can never take a request, with what to do; `None` if it may.
pub fn impossible(condition: &Match, kind: RouteKind) -> Option<String> {
    let header = |h| impossible_header(h, kind);
    impossible_path(&condition.path).or_else(|| condition.headers.iter().find_map(header))
}

fn impossible_path(path: &PathMatch) -> Option<String> {
    let (PathMatch::Exact(text) | PathMatch::Prefix(text)) = path else {
        return None;
    };
    if let Some(sign) = text.chars().find(|c| matches!(c, '?' | '#')) {
        return Some(format!(
            "the path {text:?} has a \"{sign}\", which no path of a request has; match the query with queryParams, or write the sign as %{:02X}",
            u32::from(sign)
        ));
    }
    if let Some(sign) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Some(format!(
            "the path {text:?} has the character {sign:?}, which requests can only send escaped; write it as %XX in UTF-8"
        ));
    }
    let error = path::normalize(text).err()?;
    Some(format!(
        "requests with the path {text:?} are refused before they are routed: {error}"
    ))
}

fn impossible_header(header: &HeaderMatch, kind: RouteKind) -> Option<String> {
    let name = header.name.as_str();
    if wire::is_consumed(name) {
        return Some(format!(
            "the header {name} concerns one connection only and is taken out before requests are routed; match another header"
        ));
    }
    let ValueMatch::Exact(value) = &header.value else {
        return None;
    };
    if value.trim_matches([' ', '\t']).len() < value.len() {
        return Some(format!(
            "the value {value:?} of header {name} begins or ends with a blank, which HTTP takes off; write it without"
        ));
    }
    let is_grpc = || {
        let mut fields = wire::Fields::new();
        fields.append("content-type", value.as_bytes());
        super::is_grpc(&fields)
    };
    (kind == RouteKind::Grpc && name == "content-type" && !is_grpc()).then(|| {
        format!(
            "a GRPCRoute sees requests with a content-type of application/grpc only, not {value:?}; use an HTTPRoute"
        )
    })
}
