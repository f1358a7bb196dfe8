//! Filters of routes: headers, redirects, rewrites (Gateway API v1 `HTTPRouteFilter`).
//!
//! That a filter's `type` and its one field agree, and which filters exclude each other, is the CRD's
//! to say ([`crate::Schemas`]).

use http::{HeaderName, HeaderValue, Method, StatusCode};
use model::name::is_subdomain;
use model::route::{
    Cors, Filter, Fraction, HeaderChange, Listed, Mirror, PathChange, Redirect, Rewrite,
};
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};

use super::backend::{BackendObjectRef, Resolve};
use crate::check::Check;
use crate::kind::http_route::{MethodSpec, path_characters_ok};
use crate::reference::{NAME_RULE, shorten};

/// A filter of an `HTTPRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpFilter {
    /// Which of the fields holds it.
    #[serde(rename = "type")]
    pub filter_type: HttpFilterType,
    /// Changes headers of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes headers of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Answers with a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<RedirectSpec>,
    /// Changes host and path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_rewrite: Option<RewriteSpec>,
    /// Says what pages of other origins may do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsSpec>,
    /// Sends copies of requests elsewhere too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<MirrorSpec>,
}

/// `type` of a filter of an `HTTPRoute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum HttpFilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    #[serde(rename = "CORS")]
    Cors,
    RequestMirror,
}

/// A filter of a `GRPCRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcFilter {
    /// Which of the fields holds it.
    #[serde(rename = "type")]
    pub filter_type: GrpcFilterType,
    /// Changes headers of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes headers of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Sends copies of calls elsewhere too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<MirrorSpec>,
}

/// `type` of a filter of a `GRPCRoute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum GrpcFilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
}

impl From<&GrpcFilter> for HttpFilter {
    fn from(filter: &GrpcFilter) -> Self {
        Self {
            filter_type: match filter.filter_type {
                GrpcFilterType::RequestHeaderModifier => HttpFilterType::RequestHeaderModifier,
                GrpcFilterType::ResponseHeaderModifier => HttpFilterType::ResponseHeaderModifier,
                GrpcFilterType::RequestMirror => HttpFilterType::RequestMirror,
            },
            request_header_modifier: filter.request_header_modifier.clone(),
            response_header_modifier: filter.response_header_modifier.clone(),
            request_redirect: None,
            url_rewrite: None,
            cors: None,
            request_mirror: filter.request_mirror.clone(),
        }
    }
}

/// Headers to set, add and remove.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeaderModifier {
    /// Replaced or added.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub set: Vec<Header>,
    /// Added beside what is there.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub add: Vec<Header>,
    /// Taken out.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedirectSpec {
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Host without port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Status.
    #[serde(default = "found")]
    pub status_code: u16,
}

fn found() -> u16 {
    302
}

/// Scheme of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "what they are called")]
pub enum Scheme {
    Http,
    Https,
}

/// A rewrite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewriteSpec {
    /// New host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// New path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// A change of path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// Which of the fields holds it.
    #[serde(rename = "type")]
    pub modifier: PathModifierType,
    /// This path instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_full_path: Option<String>,
    /// This instead of the prefix that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace_prefix_match: Option<String>,
}

/// `type` of a change of path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CorsSpec {
    /// Pages of which origins; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub allow_origins: Vec<String>,
    /// Whether they may send credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Methods beside the safelisted ones; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub allow_methods: Vec<String>,
    /// Request headers; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read; `*` is all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub expose_headers: Vec<String>,
    /// Seconds for which the answer may be kept.
    #[serde(default = "five")]
    pub max_age: u32,
}

fn five() -> u32 {
    5
}

/// Copies of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorSpec {
    /// To whom.
    pub backend_ref: BackendObjectRef,
    /// Of so many requests in a hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Of so many requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<FractionSpec>,
}

/// A share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FractionSpec {
    /// So many.
    pub numerator: u32,
    /// Of so many.
    #[serde(default = "hundred")]
    pub denominator: u32,
}

fn hundred() -> u32 {
    100
}

/// Checks the filters of a rule or of a backend, in the field `filters`.
///
/// `one_prefix`: whether the rule has exactly one match, and that on a prefix.
pub(crate) fn filters(
    list: &[HttpFilter],
    one_prefix: bool,
    c: &mut Check<'_>,
    resolve: &mut Resolve<'_>,
) -> Vec<Filter> {
    let found = c.each("filters", list, |c, filter| {
        one_filter(filter, one_prefix, c, resolve)
    });
    found.into_iter().flatten().collect()
}

fn one_filter(
    filter: &HttpFilter,
    one_prefix: bool,
    c: &mut Check<'_>,
    resolve: &mut Resolve<'_>,
) -> Option<Filter> {
    use HttpFilterType as T;
    match filter.filter_type {
        T::RequestHeaderModifier => filter
            .request_header_modifier
            .as_ref()
            .map(|m| Filter::RequestHeaders(c.at("requestHeaderModifier", |c| headers(m, c)))),
        T::ResponseHeaderModifier => filter
            .response_header_modifier
            .as_ref()
            .map(|m| Filter::ResponseHeaders(c.at("responseHeaderModifier", |c| headers(m, c)))),
        T::RequestRedirect => filter
            .request_redirect
            .as_ref()
            .map(|r| Filter::Redirect(c.at("requestRedirect", |c| redirect(r, one_prefix, c)))),
        T::UrlRewrite => filter
            .url_rewrite
            .as_ref()
            .map(|r| Filter::Rewrite(c.at("urlRewrite", |c| rewrite(r, one_prefix, c)))),
        T::Cors => filter
            .cors
            .as_ref()
            .map(|spec| Filter::Cors(c.at("cors", |c| cors(spec, c)))),
        T::RequestMirror => filter
            .request_mirror
            .as_ref()
            .map(|spec| Filter::Mirror(c.at("requestMirror", |c| mirror(spec, c, resolve)))),
    }
}

fn mirror(spec: &MirrorSpec, c: &mut Check<'_>, resolve: &mut Resolve<'_>) -> Mirror {
    let (numerator, denominator) = match (spec.percent, spec.fraction) {
        (Some(percent), _) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator),
        (None, None) => (1, 1),
    };
    // The CRD sees to it that it is a share.
    let share = Fraction::new(numerator, denominator).unwrap_or(Fraction::ALL);
    Mirror {
        target: c.at("backendRef", |c| {
            spec.backend_ref.target().check(c, resolve)
        }),
        share,
    }
}

fn cors(spec: &CorsSpec, c: &mut Check<'_>) -> Cors {
    if spec.allow_origins.is_empty() {
        c.warn_at(
            "allowOrigins",
            "is empty: pages of no origin may send such a request",
            "name origins, or \"*\"",
        );
    }
    let credentials = spec.allow_credentials.unwrap_or(false);
    let exposed = cors_list("exposeHeaders", &spec.expose_headers, c, parse_header_name);
    if credentials && exposed == Listed::All {
        c.warn_at(
            "exposeHeaders",
            "\"*\" exposes nothing where credentials are allowed (Fetch Standard)",
            "name the headers",
        );
    }
    Cors {
        origins: cors_list("allowOrigins", &spec.allow_origins, c, |text| {
            text.parse().ok().filter(|_| text.len() <= 253)
        }),
        credentials,
        methods: cors_list("allowMethods", &spec.allow_methods, c, method),
        headers: cors_list("allowHeaders", &spec.allow_headers, c, parse_header_name),
        exposed,
        max_age: spec.max_age,
    }
}

/// A method that the CRD knows.
fn method(text: &str) -> Option<Method> {
    let text: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    MethodSpec::deserialize(text).ok().map(MethodSpec::to_model)
}

/// A list in which `*` stands alone (which the CRD sees to).
fn cors_list<T>(
    field: &'static str,
    texts: &[String],
    c: &mut Check<'_>,
    read: impl Fn(&str) -> Option<T>,
) -> Listed<T> {
    if texts.iter().any(|text| text == "*") {
        return Listed::All;
    }
    let list = c.each(field, texts, |c, text| {
        let item = read(text);
        if item.is_none() {
            let (message, hint) = match (text.as_str(), field) {
                (_, "allowOrigins") => (
                    "is no origin",
                    "write scheme, host and perhaps port, as \"https://*.example.com\"",
                ),
                (_, "allowMethods") => ("is no method", "methods are in upper case, as \"PUT\""),
                _ => (
                    "is not a header's name",
                    "use letters, digits and !#$%&'*+-.^_`|~",
                ),
            };
            c.error(format!("\"{}\" {message}", shorten(text)), hint);
        }
        item
    });
    Listed::Only(list.into_iter().flatten().collect())
}

fn headers(modifier: &HeaderModifier, c: &mut Check<'_>) -> HeaderChange {
    if *modifier == HeaderModifier::default() {
        c.warn("changes nothing", "add `set`, `add` or `remove`");
    }
    let pairs = |c: &mut Check<'_>, field, list: &[Header]| {
        let mut seen = Vec::new();
        c.each(field, list, |c, header| {
            let name = header_name("name", &header.name, c)?;
            c.at("name", |c| check_protected(&name, c));
            if seen.contains(&name) {
                c.error_at("name", format!("\"{name}\" is there twice"), "take one out");
            }
            seen.push(name.clone());
            let value = header_value(&header.value, c)?;
            Some((name, value))
        })
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
    };
    let set = pairs(c, "set", &modifier.set);
    let add = pairs(c, "add", &modifier.add);
    let mut seen = Vec::new();
    let remove = c.each("remove", &modifier.remove, |c, text| {
        let name = parse_header_name(text);
        match &name {
            None => c.error(format!("\"{}\" is not a header's name", shorten(text)), ""),
            Some(name) if seen.contains(name) => {
                c.error(format!("\"{name}\" is there twice"), "take one out");
            }
            Some(name) => {
                check_protected(name, c);
                seen.push(name.clone());
            }
        }
        name
    });
    HeaderChange {
        set,
        add,
        remove: remove.into_iter().flatten().collect(),
    }
}

/// What the proxy would not change is refused here.
fn check_protected(name: &HeaderName, c: &mut Check<'_>) {
    if policy::filter::is_protected(name) {
        let hint = match name.as_str() {
            "host" => "use URLRewrite with `hostname`",
            _ => "it belongs to the connection; take it out",
        };
        c.error(format!("\"{name}\" cannot be changed by a route"), hint);
    }
}

fn parse_header_name(text: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(text.as_bytes())
        .ok()
        .filter(|_| text.len() <= 256)
}

/// The name of a header (RFC 9110 5.6.2: a token).
pub(crate) fn header_name(
    field: &'static str,
    text: &str,
    c: &mut Check<'_>,
) -> Option<HeaderName> {
    let name = parse_header_name(text);
    if name.is_none() {
        let hint = if text.starts_with(':') {
            "pseudo-headers cannot be named; match on `path` or `method`"
        } else {
            "use letters, digits and !#$%&'*+-.^_`|~"
        };
        let message = format!("\"{}\" is not a header's name", shorten(text));
        c.error_at(field, message, hint);
    }
    name
}

fn header_value(text: &str, c: &mut Check<'_>) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(text)
        .ok()
        .filter(|_| (1..=4096).contains(&text.len()));
    if value.is_none() {
        let message = format!("\"{}\" is not a header's value", shorten(text));
        c.error_at("value", message, "use 1 to 4096 visible characters");
    }
    value
}

fn redirect(spec: &RedirectSpec, one_prefix: bool, c: &mut Check<'_>) -> Redirect {
    let status = StatusCode::from_u16(spec.status_code).ok();
    Redirect {
        scheme: spec.scheme.map(|s| match s {
            Scheme::Http => "http".to_owned(),
            Scheme::Https => "https".to_owned(),
        }),
        hostname: hostname(spec.hostname.as_deref(), c),
        path: path_change(spec.path.as_ref(), one_prefix, c),
        port: spec.port,
        status: status.unwrap_or(StatusCode::FOUND),
    }
}

fn rewrite(spec: &RewriteSpec, one_prefix: bool, c: &mut Check<'_>) -> Rewrite {
    if spec.hostname.is_none() && spec.path.is_none() {
        c.warn("changes nothing", "add `hostname` or `path`");
    }
    Rewrite {
        hostname: hostname(spec.hostname.as_deref(), c),
        path: path_change(spec.path.as_ref(), one_prefix, c),
    }
}

fn hostname(text: Option<&str>, c: &mut Check<'_>) -> Option<String> {
    let text = text?;
    if !is_subdomain(text) || text.parse::<std::net::IpAddr>().is_ok() {
        let message = format!("\"{}\" is not a host's name", shorten(text));
        c.error_at("hostname", message, NAME_RULE);
    }
    Some(text.to_owned())
}

fn path_change(
    spec: Option<&PathModifier>,
    one_prefix: bool,
    c: &mut Check<'_>,
) -> Option<PathChange> {
    let spec = spec?;
    c.at("path", |c| {
        let (field, text) = match spec.modifier {
            PathModifierType::ReplaceFullPath => ("replaceFullPath", &spec.replace_full_path),
            PathModifierType::ReplacePrefixMatch => {
                ("replacePrefixMatch", &spec.replace_prefix_match)
            }
        };
        let text = text.as_ref()?;
        // It goes into a request line or a Location header as it is.
        let clean = path_characters_ok(text.as_bytes())
            && (text.is_empty() || text.starts_with('/'));
        if !clean {
            let message = format!("\"{}\" is not a path", shorten(text));
            c.error_at(field, message, "begin with '/' and write special characters as %XX");
        }
        match spec.modifier {
            PathModifierType::ReplaceFullPath if text.is_empty() => {
                c.error_at(field, "must not be empty", "write \"/\" for the root");
                None
            }
            PathModifierType::ReplaceFullPath => Some(PathChange::Full(text.clone())),
            PathModifierType::ReplacePrefixMatch => {
                if !one_prefix {
                    c.error_at(
                        field,
                        "needs a rule with exactly one match, and that on a `path` of type PathPrefix",
                        "split the rule, one for each prefix",
                    );
                }
                Some(PathChange::Prefix(text.clone()))
            }
        }
    })
}
