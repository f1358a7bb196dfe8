//! Conditions on requests.

use http::HeaderName;
use model::pattern::Pattern;
use model::route::{HeaderMatch, Match, PathMatch, QueryMatch, ValueMatch};

use crate::codec::field::{Invalid, Result, each, parse, required, twice};
use crate::proto::v1;
use v1::route_match::Path;
use v1::value_match::Value;

pub(in crate::codec) fn to_message(m: &Match) -> v1::RouteMatch {
    v1::RouteMatch {
        path: Some(match &m.path {
            PathMatch::Exact(path) => Path::PathExact(path.clone()),
            PathMatch::Prefix(path) => Path::PathPrefix(path.clone()),
            PathMatch::Regex(pattern) => Path::PathRegex(pattern.source().to_owned()),
            PathMatch::GrpcMethod(method) => Path::GrpcMethod(method.clone()),
        }),
        headers: m
            .headers
            .iter()
            .map(|header| value_to_message(header.name.as_str(), &header.value))
            .collect(),
        query: m
            .query
            .iter()
            .map(|parameter| value_to_message(&parameter.name, &parameter.value))
            .collect(),
        method: m.method.as_ref().map(ToString::to_string),
    }
}

fn value_to_message(name: &str, value: &ValueMatch) -> v1::ValueMatch {
    v1::ValueMatch {
        name: name.to_owned(),
        value: Some(match value {
            ValueMatch::Exact(text) => Value::Exact(text.clone()),
            ValueMatch::Regex(pattern) => Value::Regex(pattern.source().to_owned()),
        }),
    }
}

pub(in crate::codec) fn from_message(message: v1::RouteMatch) -> Result<Match> {
    let headers = each("headers", message.headers, |header| {
        Ok(HeaderMatch {
            name: parse::<HeaderName>("name", &header.name)?,
            value: value(required("value", header.value)?)?,
        })
    })?;
    if let Some(name) = twice(headers.iter().map(|header| header.name.as_str())) {
        return Err(Invalid::new(
            "headers",
            format!("\"{name}\" is there twice"),
        ));
    }
    let query = each("query", message.query, |parameter| {
        Ok(QueryMatch {
            value: value(required("value", parameter.value)?)?,
            name: parameter.name,
        })
    })?;
    if let Some(name) = twice(query.iter().map(|parameter| parameter.name.as_str())) {
        return Err(Invalid::new("query", format!("\"{name}\" is there twice")));
    }
    Ok(Match {
        path: path(required("path", message.path)?)?,
        headers,
        query,
        method: message
            .method
            .map(|method| parse("method", &method))
            .transpose()?,
    })
}

fn path(path: Path) -> Result<PathMatch> {
    Ok(match path {
        Path::PathExact(path) => PathMatch::Exact(path),
        Path::PathPrefix(path) => {
            if path != "/" && path.ends_with('/') {
                return Err(Invalid::new(
                    "path_prefix",
                    "ends in \"/\", which only the prefix of all paths does",
                ));
            }
            PathMatch::Prefix(path)
        }
        Path::PathRegex(source) => PathMatch::Regex(pattern("path_regex", &source)?),
        Path::GrpcMethod(method) => PathMatch::GrpcMethod(method),
    })
}

fn value(value: Value) -> Result<ValueMatch> {
    Ok(match value {
        Value::Exact(text) => ValueMatch::Exact(text),
        Value::Regex(source) => ValueMatch::Regex(pattern("regex", &source)?),
    })
}

fn pattern(field: &str, source: &str) -> Result<Pattern> {
    Pattern::new(source).map_err(|error| Invalid::new(field, error))
}
