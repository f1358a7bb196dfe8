//! Patterns of the CRDs, what is said of a text that does not match, and the hint.

use crate::reference::{LABEL_RULE, NAME_RULE};

pub(super) const PATTERNS: &[(&str, &str, &str)] = &[
    (
        r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
        "is not a kind",
        "write it as in `kind:`",
    ),
    (
        r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "is not an API group",
        "write it as in `apiVersion:`, without the version",
    ),
    (
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "is not a valid namespace",
        LABEL_RULE,
    ),
    (
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "is not a valid name",
        NAME_RULE,
    ),
    (
        r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "is not a host's name",
        NAME_RULE,
    ),
    (
        r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$",
        "is not a header's name",
        "use letters, digits and !#$%&'*+-.^_`|~",
    ),
    (
        r"^([0-9]{1,5}(h|m|s|ms)){1,4}$",
        "is not a duration of Gateway API",
        "write whole numbers with units, like 10s, 250ms or 1h30m",
    ),
    (
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
        "is not a domain and a path",
        "write it like tulle.dev/gateway",
    ),
    (
        r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        "is not a label's value",
        "use up to 63 letters, digits, '-', '_' and '.'",
    ),
    (
        r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?",
        "is not a URI",
        "write it with its scheme, such as spiffe://...",
    ),
    (
        r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)",
        "is no origin",
        "write scheme, host and perhaps port, as \"https://*.example.com\"",
    ),
    (
        r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$",
        "is not a path",
        "begin with '/' and write special characters as %XX",
    ),
];
