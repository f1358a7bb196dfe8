//! What the contract, Kubernetes or Gateway API has and this version does not serve. Such things
//! are refused by name: an ignored setting would be a lie.

/// Kinds of Gateway API, Kubernetes and the contract, without those in `ObjectKind`.
pub(crate) const KINDS: &[&str] = &[
    "ServiceExport",
    "InferencePool",
    "ExternalService",
    "AuthorizationPolicy",
    "TelemetryPolicy",
    "Rollout",
    "Extension",
    "Function",
    "Tenant",
    "Federation",
    "Experiment",
    "SecurityRule",
    "Objective",
    "Saga",
];

/// Fields by the shape (the Rust struct) that would have them.
const FIELDS: &[(&str, &[&str])] = &[
    ("ServiceSpec", &["externalName", "publishNotReadyAddresses"]),
    ("WorkloadSpec", &["healthCheck"]),
    ("HttpFilter", &["externalAuth", "extensionRef"]),
    ("GrpcFilter", &["extensionRef"]),
    ("TrafficPolicySpec", &["healthCheck", "adaptiveConcurrency"]),
    ("Fallback", &["cache"]),
    ("LocalityPreference", &["priorities", "failover"]),
    (
        "Connections",
        &["maxPendingRequests", "maxRequestsPerConnection"],
    ),
    ("AuthenticationPolicySpec", &["jwt", "oidc"]),
    ("KeySpec", &["claim"]),
    ("Tracing", &["exporters"]),
    ("AccessLog", &["filter"]),
];

/// Values by the enum that would have them.
const VALUES: &[(&str, &[&str])] = &[
    ("HttpFilterType", &["ExternalAuth", "ExtensionRef"]),
    ("GrpcFilterType", &["ExtensionRef"]),
    ("TrafficDistribution", &["PreferSameNode"]),
    ("ServiceType", &["ExternalName"]),
    ("Transport", &["SCTP"]),
    ("SessionAffinity", &["ClientIP"]),
    ("SliceAddressType", &["FQDN"]),
];

/// Whether `name` is a field that a later version will serve.
pub(crate) fn field(shape: &str, name: &str) -> bool {
    listed(FIELDS, shape, name)
}

/// Whether `word` is a value that a later version will serve.
pub(crate) fn value(shape: &str, word: &str) -> bool {
    listed(VALUES, shape, word)
}

fn listed(table: &[(&str, &[&str])], shape: &str, word: &str) -> bool {
    table
        .iter()
        .any(|(s, words)| *s == shape && words.contains(&word))
}
