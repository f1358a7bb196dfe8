//! Changes to requests and responses.

use std::fmt::Display;
use std::str::FromStr;

use http::{HeaderName, HeaderValue, StatusCode};
use model::route::{
    Cors, Filter, Fraction, HeaderChange, Listed, Mirror, PathChange, Redirect, Rewrite,
};

use crate::codec::field::{Invalid, Result, Within, each, optional_port, parse, required};
use crate::proto::v1;
use v1::path_change::Change;
use v1::route_filter::Filter as Wire;

pub(super) fn to_message(filter: &Filter) -> v1::RouteFilter {
    v1::RouteFilter {
        filter: Some(match filter {
            Filter::RequestHeaders(change) => Wire::RequestHeaders(headers_to_message(change)),
            Filter::ResponseHeaders(change) => Wire::ResponseHeaders(headers_to_message(change)),
            Filter::Redirect(redirect) => Wire::Redirect(v1::Redirect {
                scheme: redirect.scheme.clone(),
                hostname: redirect.hostname.clone(),
                path: redirect.path.as_ref().map(path_to_message),
                port: redirect.port.map(u32::from),
                status: redirect.status.as_u16().into(),
            }),
            Filter::Rewrite(rewrite) => Wire::Rewrite(v1::Rewrite {
                hostname: rewrite.hostname.clone(),
                path: rewrite.path.as_ref().map(path_to_message),
            }),
            Filter::Cors(cors) => Wire::Cors(v1::Cors {
                origins: list_to_message(&cors.origins),
                credentials: cors.credentials,
                methods: list_to_message(&cors.methods),
                headers: list_to_message(&cors.headers),
                exposed: list_to_message(&cors.exposed),
                max_age: cors.max_age,
            }),
            Filter::Mirror(mirror) => Wire::Mirror(v1::Mirror {
                backend: Some(super::target_to_message(&mirror.target)),
                numerator: mirror.share.numerator(),
                denominator: mirror.share.denominator(),
            }),
        }),
    }
}

fn list_to_message(list: &Listed<impl Display>) -> Vec<String> {
    match list {
        Listed::All => vec!["*".to_owned()],
        Listed::Only(list) => list.iter().map(ToString::to_string).collect(),
    }
}

fn headers_to_message(change: &HeaderChange) -> v1::HeaderChange {
    let header = |(name, value): &(HeaderName, HeaderValue)| v1::Header {
        name: name.to_string(),
        value: value.as_bytes().to_vec(),
    };
    v1::HeaderChange {
        set: change.set.iter().map(header).collect(),
        add: change.add.iter().map(header).collect(),
        remove: change.remove.iter().map(ToString::to_string).collect(),
    }
}

fn path_to_message(change: &PathChange) -> v1::PathChange {
    v1::PathChange {
        change: Some(match change {
            PathChange::Full(path) => Change::Full(path.clone()),
            PathChange::Prefix(path) => Change::Prefix(path.clone()),
        }),
    }
}

pub(super) fn from_message(message: v1::RouteFilter) -> Result<Filter> {
    Ok(match required("filter", message.filter)? {
        Wire::RequestHeaders(change) => {
            Filter::RequestHeaders(headers(change).within("request_headers")?)
        }
        Wire::ResponseHeaders(change) => {
            Filter::ResponseHeaders(headers(change).within("response_headers")?)
        }
        Wire::Redirect(message) => Filter::Redirect(redirect(message).within("redirect")?),
        Wire::Rewrite(message) => Filter::Rewrite(Rewrite {
            hostname: message.hostname,
            path: message.path.map(path).transpose().within("rewrite")?,
        }),
        Wire::Cors(message) => Filter::Cors(cors(message).within("cors")?),
        Wire::Mirror(message) => Filter::Mirror(mirror(message).within("mirror")?),
    })
}

fn mirror(message: v1::Mirror) -> Result<Mirror> {
    let backend = required("backend", message.backend)?;
    let share = Fraction::new(message.numerator, message.denominator);
    Ok(Mirror {
        target: super::target(backend.target).within("backend")?,
        share: share.map_err(|error| Invalid::new("numerator", error))?,
    })
}

fn cors(message: v1::Cors) -> Result<Cors> {
    Ok(Cors {
        origins: list("origins", message.origins)?,
        credentials: message.credentials,
        methods: list("methods", message.methods)?,
        headers: list("headers", message.headers)?,
        exposed: list("exposed", message.exposed)?,
        max_age: message.max_age,
    })
}

fn list<T>(field: &'static str, texts: Vec<String>) -> Result<Listed<T>>
where
    T: FromStr<Err: Display>,
{
    if texts == ["*"] {
        return Ok(Listed::All);
    }
    each(field, texts, |text| parse("", &text)).map(Listed::Only)
}

fn headers(message: v1::HeaderChange) -> Result<HeaderChange> {
    let header = |header: v1::Header| {
        let name = parse::<HeaderName>("name", &header.name)?;
        let value =
            HeaderValue::from_bytes(&header.value).map_err(|error| Invalid::new("value", error))?;
        Ok((name, value))
    };
    Ok(HeaderChange {
        set: each("set", message.set, header)?,
        add: each("add", message.add, header)?,
        remove: each("remove", message.remove, |name| parse("", &name))?,
    })
}

fn redirect(message: v1::Redirect) -> Result<Redirect> {
    if let Some(scheme) = &message.scheme
        && scheme != "http"
        && scheme != "https"
    {
        return Err(Invalid::new("scheme", "is neither \"http\" nor \"https\""));
    }
    let status = match message.status {
        301 => StatusCode::MOVED_PERMANENTLY,
        302 => StatusCode::FOUND,
        303 => StatusCode::SEE_OTHER,
        307 => StatusCode::TEMPORARY_REDIRECT,
        308 => StatusCode::PERMANENT_REDIRECT,
        other => {
            let message = format!("is {other}; redirects have 301, 302, 303, 307 or 308");
            return Err(Invalid::new("status", message));
        }
    };
    Ok(Redirect {
        scheme: message.scheme,
        hostname: message.hostname,
        path: message.path.map(path).transpose()?,
        port: optional_port("port", message.port)?,
        status,
    })
}

fn path(message: v1::PathChange) -> Result<PathChange> {
    Ok(match required("path", message.change)? {
        Change::Full(path) => PathChange::Full(path),
        Change::Prefix(path) => PathChange::Prefix(path),
    })
}
