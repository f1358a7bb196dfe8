//! Rules by the messages that they have in the CRDs, and what is said in their place.

use crate::reference::NAME_RULE;

const OF_TYPE: &str = "does not belong to `type`";
const CHANGE_TYPE: &str = "change `type`, or take it out";
const FOR_TYPE: &str = "is required for this `type`";
const PREFIX_RULE: &str =
    "needs a rule with exactly one match, and that on a `path` of type PathPrefix";
const PREFIX_HINT: &str = "split the rule, one for each prefix";
const ELEMENT: &str = "\"{}\" contains '.' or '..' as an element";
const ELEMENT_HINT: &str = "write the path that they lead to";
const ENCODED: &str = "\"{}\" contains an encoded '/'";
const ENCODED_HINT: &str = "an encoded '/' is no separator and cannot be matched";
const ALONE: &str = "\"*\" takes everything, and must stand alone";
const KEY_HINT: &str =
    "use up to 63 letters, digits, '-', '_' and '.', if need be after a domain and '/'";
const HOST: &str = "\"{}\" is not a host's name";

/// The CRD's message, the field (`*`: of the list as a whole, `^`: yields to what is said below it),
/// our message, the hint.
pub(super) const RULES: &[(&str, &str, &str, &str)] = &[
    // BackendTLSPolicy
    (
        "sectionName must be specified when targetRefs includes 2 or more references to the same target",
        "",
        "is named twice, once with and once without `sectionName`",
        "give each its own `sectionName`",
    ),
    (
        "sectionName must be unique when targetRefs includes 2 or more references to the same target",
        "",
        "is named twice",
        "take one out, or give each its own `sectionName`",
    ),
    (
        "SubjectAltName element must contain Hostname, if Type is set to Hostname",
        "hostname",
        FOR_TYPE,
        "add it",
    ),
    (
        "SubjectAltName element must not contain Hostname, if Type is not set to Hostname",
        "hostname",
        OF_TYPE,
        CHANGE_TYPE,
    ),
    (
        "SubjectAltName element must contain URI, if Type is set to URI",
        "uri",
        FOR_TYPE,
        "add it",
    ),
    (
        "SubjectAltName element must not contain URI, if Type is not set to URI",
        "uri",
        OF_TYPE,
        CHANGE_TYPE,
    ),
    (
        "must not contain both CACertificateRefs and WellKnownCACertificates",
        "",
        "has both `caCertificateRefs` and `wellKnownCACertificates`",
        "take one out",
    ),
    (
        "must specify either CACertificateRefs or WellKnownCACertificates",
        "",
        "says nobody who vouches for the backend",
        "name a ConfigMap with `ca.crt` in `caCertificateRefs`, or write `wellKnownCACertificates: System`",
    ),
    // GatewayClass
    (
        "Value is immutable",
        "",
        "cannot be changed",
        "write a new object under another name",
    ),
    // Gateway, ListenerSet
    (
        r"Hostname value must be empty or contain only valid characters (matching ^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$)",
        "value",
        HOST,
        NAME_RULE,
    ),
    (
        "IPAddress values must be unique",
        "value",
        "\"{}\" is there twice",
        "take one out",
    ),
    (
        "Hostname values must be unique",
        "value",
        "\"{}\" is there twice",
        "take one out",
    ),
    (
        "Annotation keys must be in the form of an optional DNS subdomain prefix followed by a required name segment of up to 63 characters.",
        "",
        "has a key that no annotation has",
        KEY_HINT,
    ),
    (
        "Label keys must be in the form of an optional DNS subdomain prefix followed by a required name segment of up to 63 characters.",
        "",
        "has a key that no label has",
        KEY_HINT,
    ),
    (
        "If specified, the annotation key's prefix must be a DNS subdomain not longer than 253 characters in total.",
        "",
        "has a key with a domain of more than 252 characters",
        "use a shorter one",
    ),
    (
        "If specified, the label key's prefix must be a DNS subdomain not longer than 253 characters in total.",
        "",
        "has a key with a domain of more than 252 characters",
        "use a shorter one",
    ),
    (
        "certificateRefs or options must be specified when mode is Terminate",
        "certificateRefs",
        "is required to end TLS",
        "name a Secret of the type kubernetes.io/tls, or write `mode: Passthrough`",
    ),
    (
        "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
        "tls",
        "is only for listeners for HTTPS and TLS",
        "take it out, or change `protocol`",
    ),
    (
        "tls mode must be Terminate for protocol HTTPS",
        "tls.mode",
        "must be Terminate for HTTPS",
        "to pass TLS through, write `protocol: TLS`",
    ),
    (
        "tls mode must be set for protocol TLS",
        "tls",
        "is required for TLS",
        "add `tls: {certificateRefs: [{name: ...}]}`, or `tls: {mode: Passthrough}`",
    ),
    (
        "hostname must not be specified for protocols ['TCP', 'UDP']",
        "hostname",
        "a listener for TCP or UDP sees no host names",
        "take it out",
    ),
    (
        "Listener name must be unique within the Gateway",
        "^",
        "is named like another listener",
        "give each its own name",
    ),
    (
        "Port for TLS configuration must be unique within the Gateway",
        "^",
        "is for the same port as another",
        "take one out",
    ),
    (
        "Combination of port, protocol and hostname must be unique for each listener",
        "",
        "has port, protocol and hostname of another listener",
        "give one of them another port or hostname",
    ),
    // Routes
    (
        "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent",
        "",
        "is named twice, once with and once without `port` or `sectionName`",
        "give each its own `port` or `sectionName`",
    ),
    (
        "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent",
        "",
        "is named twice",
        "take one out, or give each its own `port` or `sectionName`",
    ),
    (
        "Must have port for Service reference",
        "port",
        "is required for a Service",
        "add `port`",
    ),
    (
        "numerator must be less than or equal to denominator",
        "numerator",
        "is more than `denominator`",
        "write at most the same number",
    ),
    (
        "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter",
        "",
        "has both `percent` and `fraction`",
        "take one of them out",
    ),
    (
        "One or both of 'service' or 'method' must be specified",
        "",
        "names neither a service nor a method",
        "add `service`, `method` or both",
    ),
    (
        r"service must only contain valid characters (matching ^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$)",
        "service",
        "\"{}\" is not the name of a service",
        "write package.Service, or `type: RegularExpression`",
    ),
    (
        "method must only contain valid characters (matching ^[A-Za-z_][A-Za-z_0-9]*$)",
        "method",
        "\"{}\" is not the name of a method",
        "write its name alone, or `type: RegularExpression`",
    ),
    (
        "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent",
        "absoluteTimeout",
        "is required where the cookie's `lifetimeType` is Permanent",
        "add it, or write `lifetimeType: Session`",
    ),
    (
        "cookieConfig can only be set with type Cookie",
        "cookieConfig",
        OF_TYPE,
        CHANGE_TYPE,
    ),
    (
        "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128",
        "*",
        "have more than 128 matches together",
        "split the route",
    ),
    (
        "Rule name must be unique within the route",
        "name",
        "two rules are named \"{}\"",
        "give each rule its own name",
    ),
    (
        "AllowHeaders cannot contain '*' alongside other methods",
        "*",
        ALONE,
        "take the others out",
    ),
    (
        "AllowMethods cannot contain '*' alongside other methods",
        "*",
        ALONE,
        "take the others out",
    ),
    (
        "AllowOrigins cannot contain '*' alongside other origins",
        "*",
        ALONE,
        "take the others out",
    ),
    (
        "replaceFullPath must be specified when type is set to 'ReplaceFullPath'",
        "",
        "`replaceFullPath` is missing",
        "add `replaceFullPath`",
    ),
    (
        "type must be 'ReplaceFullPath' when replaceFullPath is set",
        "replaceFullPath",
        OF_TYPE,
        CHANGE_TYPE,
    ),
    (
        "replacePrefixMatch must be specified when type is set to 'ReplacePrefixMatch'",
        "",
        "`replacePrefixMatch` is missing",
        "add `replacePrefixMatch`",
    ),
    (
        "type must be 'ReplacePrefixMatch' when replacePrefixMatch is set",
        "replacePrefixMatch",
        OF_TYPE,
        CHANGE_TYPE,
    ),
    (
        "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both",
        "*",
        "URLRewrite and RequestRedirect exclude each other",
        "a redirect has `hostname` and `path` of its own",
    ),
    (
        "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']",
        "value",
        "\"{}\" does not begin with '/'",
        "write an absolute path",
    ),
    (
        "must not contain '//' when type one of ['Exact', 'PathPrefix']",
        "value",
        "\"{}\" contains \"//\"",
        "paths are compared as they are; write one '/'",
    ),
    (
        "must not contain '/./' when type one of ['Exact', 'PathPrefix']",
        "value",
        ELEMENT,
        ELEMENT_HINT,
    ),
    (
        "must not contain '/../' when type one of ['Exact', 'PathPrefix']",
        "value",
        ELEMENT,
        ELEMENT_HINT,
    ),
    (
        "must not end with '/..' when type one of ['Exact', 'PathPrefix']",
        "value",
        ELEMENT,
        ELEMENT_HINT,
    ),
    (
        "must not end with '/.' when type one of ['Exact', 'PathPrefix']",
        "value",
        ELEMENT,
        ELEMENT_HINT,
    ),
    (
        "must not contain '%2f' when type one of ['Exact', 'PathPrefix']",
        "value",
        ENCODED,
        ENCODED_HINT,
    ),
    (
        "must not contain '%2F' when type one of ['Exact', 'PathPrefix']",
        "value",
        ENCODED,
        ENCODED_HINT,
    ),
    (
        "must not contain '#' when type one of ['Exact', 'PathPrefix']",
        "value",
        "\"{}\" contains '#'",
        "fragments are never sent; take it out",
    ),
    (
        "must only contain valid characters (matching ^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$) for types ['Exact', 'PathPrefix']",
        "value",
        "\"{}\" contains a character that no path has",
        "encode it as %XX; a query is matched with `queryParams`",
    ),
    (
        "backendRequest timeout cannot be longer than request timeout",
        "backendRequest",
        "is longer than `request`, which ends first",
        "make it at most as long",
    ),
    (
        "RequestRedirect filter must not be used together with backendRefs",
        "backendRefs",
        "exclude the redirect among `filters`: no request would ever get there",
        "take one of them out",
    ),
    (
        "When using RequestRedirect filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified",
        "^filters",
        PREFIX_RULE,
        PREFIX_HINT,
    ),
    (
        "When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified",
        "^filters",
        PREFIX_RULE,
        PREFIX_HINT,
    ),
    (
        "Within backendRefs, when using RequestRedirect filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified",
        "^backendRefs",
        PREFIX_RULE,
        PREFIX_HINT,
    ),
    (
        "Within backendRefs, When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified",
        "^backendRefs",
        PREFIX_RULE,
        PREFIX_HINT,
    ),
    ("Hostnames cannot contain an IP", "", HOST, NAME_RULE),
    (
        "Hostnames must be valid based on RFC-1123",
        "",
        HOST,
        NAME_RULE,
    ),
    (
        "Wildcards on hostnames must be the first label, and the rest of hostname must be valid based on RFC-1123",
        "",
        HOST,
        NAME_RULE,
    ),
];
