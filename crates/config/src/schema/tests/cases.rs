//! Specifications and what is said of each: nothing, or `field: message` (its beginning), more than
//! one separated by ` | `.

/// Cases that have their surroundings in common.
pub(super) struct Group {
    pub(super) kind: &'static str,
    pub(super) version: &'static str,
    /// The specification; `@` is the case.
    pub(super) around: &'static str,
    pub(super) cases: &'static [(&'static str, &'static str)],
}

const fn v1(
    kind: &'static str,
    around: &'static str,
    cases: &'static [(&'static str, &'static str)],
) -> Group {
    Group {
        kind,
        version: "v1",
        around,
        cases,
    }
}

/// Rules that cannot be broken, since the schema refuses first what would break them.
pub(super) const NEVER: &[&str] = &[
    // An enumeration has the same values.
    "self.type in ['Exact','PathPrefix'] || self.type == 'RegularExpression'",
];

pub(super) const ALL: &[Group] = &[
    v1("GatewayClass", "{@}", GATEWAY_CLASS),
    v1("Gateway", "{@}", GATEWAY),
    v1("Gateway", "{gatewayClassName: c, listeners: [{name: a, port: 80, protocol: HTTP}], @}", GATEWAY_FIELDS),
    v1("Gateway", "{gatewayClassName: c, listeners: [@]}", LISTENERS),
    v1("ListenerSet", "{parentRef: {name: g}, listeners: [@]}", LISTENERS),
    v1("ListenerSet", "{@}", LISTENER_SET),
    v1("HTTPRoute", "{@}", HTTP_ROUTE),
    v1("HTTPRoute", "{parentRefs: [@]}", PARENTS),
    v1("GRPCRoute", "{parentRefs: [@]}", PARENTS),
    v1("HTTPRoute", "{rules: [{matches: [@]}]}", HTTP_MATCHES),
    v1("HTTPRoute", "{rules: [{filters: [@]}]}", FILTERS),
    v1("HTTPRoute", "{rules: [{filters: [@]}]}", HTTP_FILTERS),
    v1("HTTPRoute", "{rules: [{backendRefs: [{name: b, port: 1, filters: [{type: CORS, cors: {@}}]}]}]}", CORS),
    v1("HTTPRoute", "{rules: [{@}]}", HTTP_RULES),
    v1("GRPCRoute", "{@}", GRPC_ROUTE),
    v1("GRPCRoute", "{rules: [{filters: [@]}]}", FILTERS),
    v1("GRPCRoute", "{rules: [{matches: [@]}]}", GRPC_MATCHES),
    v1("TLSRoute", "{@}", TLS_ROUTE),
    v1("TLSRoute", "{hostnames: [a.example], rules: [@]}", STREAM_RULES),
    v1("TCPRoute", "{rules: [@]}", STREAM_RULES),
    v1("UDPRoute", "{rules: [@]}", STREAM_RULES),
    Group { kind: "TCPRoute", version: "v1alpha2", around: "{@}", cases: OLD_STREAM_ROUTE },
    Group { kind: "UDPRoute", version: "v1alpha2", around: "{@}", cases: OLD_STREAM_ROUTE },
    Group { kind: "TLSRoute", version: "v1alpha2", around: "{@}", cases: OLD_STREAM_ROUTE },
    v1("BackendTLSPolicy", "{targetRefs: [{group: '', kind: Service, name: s}], validation: {hostname: a.example, @}}", VALIDATION),
    v1("BackendTLSPolicy", "{validation: {hostname: a.example, wellKnownCACertificates: System}, targetRefs: [@]}", TARGETS),
    v1("ReferenceGrant", "{@}", REFERENCE_GRANT),
    Group { kind: "ReferenceGrant", version: "v1beta1", around: "{@}", cases: REFERENCE_GRANT },
];

const GATEWAY_CLASS: &[(&str, &str)] = &[
    ("controllerName: tulle.dev/gateway", ""),
    ("controllerName: tulle.dev/gateway, description: for us", ""),
    ("controllerName: tulle", "spec.controllerName: \"tulle\" is not a domain and a path"),
    ("", "spec.controllerName: is required"),
    ("controllerName: a.b/c, description: a1234567890123456789012345678901234567890123456789012345678901234", "spec.description: is longer than 64 characters"),
    ("controllerName: a.b/c, parametersRef: {kind: K, name: n}", "spec.parametersRef.group: is required"),
    ("controllerName: a.b/c, parametersRef: {group: a.b, kind: 1K, name: n}", "spec.parametersRef.kind: \"1K\" is not a kind"),
];

const GATEWAY: &[(&str, &str)] = &[
    ("gatewayClassName: c, listeners: [{name: a, port: 80, protocol: HTTP}]", ""),
    ("listeners: [{name: a, port: 80, protocol: HTTP}]", "spec.gatewayClassName: is required"),
    ("gatewayClassName: c", "spec.listeners: is required"),
    ("gatewayClassName: c, listeners: []", "spec.listeners: must have at least one item"),
    ("gatewayClassName: [c], listeners: {}", "spec.gatewayClassName: must be a string, not a list | spec.listeners: must be a list, not a map"),
];

const GATEWAY_FIELDS: &[(&str, &str)] = &[
    ("addresses: [{value: 10.0.0.1}, {value: '::1'}]", ""),
    ("addresses: [{type: IPAddress}]", ""),
    ("addresses: [{value: nowhere}]", "spec.addresses[0].value: \"nowhere\" is not an IP address"),
    ("addresses: [{value: 10.0.0.1}, {value: 10.0.0.2}, {value: 10.0.0.1}]", "spec.addresses[2].value: \"10.0.0.1\" is there twice"),
    ("addresses: [{type: Hostname, value: a.example}, {type: Hostname}]", ""),
    ("addresses: [{type: Hostname, value: a.example}, {type: Hostname, value: a.example}]", "spec.addresses[1].value: \"a.example\" is there twice"),
    ("addresses: [{type: Hostname, value: A_B}]", "spec.addresses[0].value: \"A_B\" is not a host's name"),
    ("infrastructure: {labels: {a: b}, annotations: {example.com/a: anything at all}}", ""),
    ("infrastructure: {labels: {a b: c}}", "spec.infrastructure.labels: has a key that no label has"),
    ("infrastructure: {annotations: {-a: c}}", "spec.infrastructure.annotations: has a key that no annotation has"),
    ("infrastructure: {labels: {a: 'b c'}}", "spec.infrastructure.labels.a: \"b c\" is not a label's value"),
    ("infrastructure: {labels: {a: 5}}", "spec.infrastructure.labels.a: must be a string, not integer `5`"),
    (
        "infrastructure: {annotations: {aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/b: c}}",
        "spec.infrastructure.annotations: has a key with a domain of more than 252 characters",
    ),
    ("tls: {frontend: {default: {}, perPort: [{port: 1, tls: {}}, {port: 2, tls: {}}]}}", ""),
    ("tls: {frontend: {default: {}, perPort: [{port: 1, tls: {}}, {port: 1, tls: {}}]}}", "spec.tls.frontend.perPort[1].port: is there twice"),
    ("tls: {frontend: {default: {}, perPort: [{port: 0, tls: {}}]}}", "spec.tls.frontend.perPort[0].port: must be from 1 to 65535"),
    ("tls: {frontend: {perPort: []}}", "spec.tls.frontend.default: is required"),
    ("tls: {frontend: {default: {validation: {caCertificateRefs: []}}}}", "spec.tls.frontend.default.validation.caCertificateRefs: must have at least one item"),
    ("tls: {frontend: {default: {validation: {mode: Sometimes, caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]}}}}", "spec.tls.frontend.default.validation.mode: \"Sometimes\" is not one of its values"),
    ("tls: {backend: {clientCertificateRef: {name: a, namespace: b}}}", ""),
    ("tls: {backend: {clientCertificateRef: {name: a, namespace: B}}}", "spec.tls.backend.clientCertificateRef.namespace: \"B\" is not a valid namespace"),
    ("allowedListeners: {namespaces: {from: Everywhere}}", "spec.allowedListeners.namespaces.from: \"Everywhere\" is not one of its values"),
];

const LISTENERS: &[(&str, &str)] = &[
    ("{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP, hostname: a.example}", ""),
    ("{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: s}]}}", ""),
    ("{name: a, port: 443, protocol: HTTPS, tls: {options: {example.com/a: b}}}", ""),
    ("{name: a, port: 443, protocol: TLS, tls: {mode: Passthrough}}", ""),
    ("{name: a, port: 443, protocol: HTTPS, tls: {}}", "spec.listeners[0].tls.certificateRefs: is required to end TLS"),
    ("{name: a, port: 443, protocol: HTTPS, tls: {mode: Terminate, certificateRefs: []}}", "spec.listeners[0].tls.certificateRefs: is required to end TLS"),
    ("{name: a, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}", "spec.listeners[0].tls.mode: must be Terminate for HTTPS"),
    ("{name: a, port: 443, protocol: TLS}", "spec.listeners[0].tls: is required for TLS"),
    ("{name: a, port: 443, protocol: HTTPS}", ""),
    ("{name: a, port: 80, protocol: HTTP, tls: {certificateRefs: [{name: s}]}}", "spec.listeners[0].tls: is only for listeners for HTTPS and TLS"),
    ("{name: a, port: 80, protocol: TCP}, {name: b, port: 81, protocol: UDP, tls: {mode: Passthrough}}", "spec.listeners[1].tls: is only for listeners for HTTPS and TLS"),
    ("{name: a, port: 80, protocol: TCP, hostname: a.example}", "spec.listeners[0].hostname: a listener for TCP or UDP sees no host names"),
    ("{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}", "spec.listeners[1].name: two listeners are named \"a\""),
    ("{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}", "spec.listeners[1]: has port, protocol and hostname of another listener"),
    ("{name: a, port: 80, protocol: HTTP, hostname: a.b}, {name: b, port: 80, protocol: HTTP, hostname: a.b}", "spec.listeners[1]: has port, protocol and hostname of another listener"),
    ("{name: a, protocol: HTTP, port: 0}", "spec.listeners[0].port: must be from 1 to 65535"),
    ("{name: a, protocol: HTTP, port: 99999999999999999999}", "spec.listeners[0].port: must be"),
    ("{name: a, protocol: HTTP, port: '80'}", "spec.listeners[0].port: must be a whole number, not string \"80\""),
    ("{name: A, port: 80, protocol: HTTP}", "spec.listeners[0].name: \"A\" is not a valid name"),
    ("{name: a, port: 80, protocol: 'HTTP 1'}", "spec.listeners[0].protocol: \"HTTP 1\" does not match"),
    ("{name: a, port: 80, protocol: example.com/mine}", ""),
    ("{name: a, port: 80}", "spec.listeners[0].protocol: is required"),
    ("{name: a, port: 80, protocol: HTTP, hostname: a_b}", "spec.listeners[0].hostname: \"a_b\" is not a host's name"),
    ("{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: 'Http Route'}]}}", "spec.listeners[0].allowedRoutes.kinds[0].kind: \"Http Route\" is not a kind"),
    ("{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: a}]}}}}", "spec.listeners[0].allowedRoutes.namespaces.selector.matchExpressions[0].operator: is required"),
    ("null", "spec.listeners[0]: must be a map, not empty"),
];

const LISTENER_SET: &[(&str, &str)] = &[
    ("parentRef: {name: g}, listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, protocol: HTTP, port: 81}]", ""),
    ("listeners: [{name: a, port: 80, protocol: HTTP}]", "spec.parentRef: is required"),
    ("parentRef: {name: g}", "spec.listeners: is required"),
];

const HTTP_ROUTE: &[(&str, &str)] = &[
    ("", ""),
    ("rules: []", "spec.rules: must have at least one item"),
    ("hostnames: [a.example, '*.b.example']", ""),
    ("hostnames: ['*.*.example', a..b]", "spec.hostnames[0]: \"*.*.example\" is not a host's name | spec.hostnames[1]: \"a..b\" is not a host's name"),
    ("hostnames: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]", "spec.hostnames: has 17 items; there may be 16"),
    ("rules: [{name: a}, {name: b}, {}]", ""),
    ("rules: [{name: a}, {name: a}, {name: b}, {name: b}]", "spec.rules[1].name: two rules are named \"a\" | spec.rules[3].name: two rules are named \"b\""),
    ("useDefaultGateways: Everything", "spec.useDefaultGateways: \"Everything\" is not one of its values"),
];

const PARENTS: &[(&str, &str)] = &[
    ("{name: a}, {name: b}, {name: a, kind: Service, group: ''}", ""),
    ("{name: a, sectionName: x}, {name: a, sectionName: y}", ""),
    ("{name: a, port: 1}, {name: a, port: 2}", ""),
    ("{name: a, namespace: n}, {name: a, namespace: m}", ""),
    ("{name: a}, {name: a}", "spec.parentRefs[1]: is named twice"),
    ("{name: a}, {name: a, port: 5}", "spec.parentRefs[1]: is named twice, once with and once without"),
    ("{name: a, namespace: n, sectionName: x}, {name: a, namespace: n, sectionName: x}", "spec.parentRefs[1]: is named twice"),
    ("{kind: Gateway}", "spec.parentRefs[0].name: is required"),
    ("{name: ''}", "spec.parentRefs[0].name: must not be empty"),
    ("{name: a, port: 65536}", "spec.parentRefs[0].port: must be from 1 to 65535"),
    ("{name: a, group: Not_A_Group}", "spec.parentRefs[0].group: \"Not_A_Group\" is not an API group"),
];

const HTTP_MATCHES: &[(&str, &str)] = &[
    ("{path: {value: /a%20b}}", ""),
    ("{path: {type: RegularExpression, value: 'a//b#'}}", ""),
    ("{path: {value: a}}", "spec.rules[0].matches[0].path.value: \"a\" does not begin with '/'"),
    ("{path: {value: /a//b}}", "spec.rules[0].matches[0].path.value: \"/a//b\" contains \"//\""),
    ("{path: {type: Exact, value: /a/./b}}", "spec.rules[0].matches[0].path.value: \"/a/./b\" contains '.' or '..'"),
    ("{path: {value: /a/../b}}", "spec.rules[0].matches[0].path.value: \"/a/../b\" contains '.' or '..'"),
    ("{path: {value: /a/..}}", "spec.rules[0].matches[0].path.value: \"/a/..\" contains '.' or '..'"),
    ("{path: {value: /a/.}}", "spec.rules[0].matches[0].path.value: \"/a/.\" contains '.' or '..'"),
    ("{path: {value: /a%2fb}}", "spec.rules[0].matches[0].path.value: \"/a%2fb\" contains an encoded '/'"),
    ("{path: {value: /a%2Fb}}", "spec.rules[0].matches[0].path.value: \"/a%2Fb\" contains an encoded '/'"),
    ("{path: {value: '/a b'}}", "spec.rules[0].matches[0].path.value: \"/a b\" contains a character that no path has"),
    ("{path: {value: '/a#b'}}", "spec.rules[0].matches[0].path.value: \"/a#b\" contains '#'"),
    ("{path: {value: '/a?b'}}", "spec.rules[0].matches[0].path.value: \"/a?b\" contains a character that no path has"),
    ("{path: {type: Prefix}}", "spec.rules[0].matches[0].path.type: \"Prefix\" is not one of its values"),
    ("{headers: [{name: a, value: b}, {name: c, value: d}]}", ""),
    ("{headers: [{name: a, value: b}, {name: a, value: d}]}", "spec.rules[0].matches[0].headers[1].name: \"a\" is there twice"),
    ("{headers: [{name: 'a b', value: b}]}", "spec.rules[0].matches[0].headers[0].name: \"a b\" is not a header's name"),
    ("{headers: [{name: a, value: ''}]}", "spec.rules[0].matches[0].headers[0].value: must not be empty"),
    ("{queryParams: [{name: a, value: b}, {name: a, value: d}]}", "spec.rules[0].matches[0].queryParams[1].name: \"a\" is there twice"),
    ("{method: get}", "spec.rules[0].matches[0].method: \"get\" is not one of its values"),
];

/// Filters that all routes with filters have.
const FILTERS: &[(&str, &str)] = &[
    ("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}}", ""),
    ("{type: RequestHeaderModifier}", "spec.rules[0].filters[0]: the filter's `requestHeaderModifier` is missing"),
    ("{type: ResponseHeaderModifier}", "spec.rules[0].filters[0]: the filter's `responseHeaderModifier` is missing"),
    ("{type: RequestMirror}", "spec.rules[0].filters[0]: the filter's `requestMirror` is missing"),
    ("{type: ExtensionRef}", "spec.rules[0].filters[0]: the filter's `extensionRef` is missing"),
    (
        "{type: ResponseHeaderModifier, requestHeaderModifier: {}, responseHeaderModifier: {}}",
        "spec.rules[0].filters[0].requestHeaderModifier: does not belong to the filter's `type`",
    ),
    (
        "{type: RequestHeaderModifier, requestHeaderModifier: {}, responseHeaderModifier: {}}",
        "spec.rules[0].filters[0].responseHeaderModifier: does not belong to the filter's `type`",
    ),
    (
        "{type: RequestHeaderModifier, requestHeaderModifier: {}, requestMirror: {backendRef: {name: a, port: 1}}}",
        "spec.rules[0].filters[0].requestMirror: does not belong to the filter's `type`",
    ),
    (
        "{type: RequestHeaderModifier, requestHeaderModifier: {}, extensionRef: {group: a.b, kind: K, name: n}}",
        "spec.rules[0].filters[0].extensionRef: does not belong to the filter's `type`",
    ),
    (
        "{type: RequestHeaderModifier, requestHeaderModifier: {}}, {type: RequestHeaderModifier, requestHeaderModifier: {}}",
        "spec.rules[0].filters[1]: a filter of this type is there already",
    ),
    (
        "{type: ResponseHeaderModifier, responseHeaderModifier: {}}, {type: ResponseHeaderModifier, responseHeaderModifier: {}}",
        "spec.rules[0].filters[1]: a filter of this type is there already",
    ),
    (
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}, {name: a, value: c}]}}",
        "spec.rules[0].filters[0].requestHeaderModifier.set[1].name: \"a\" is there twice",
    ),
    (
        "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a, b, a]}}",
        "spec.rules[0].filters[0].requestHeaderModifier.remove[2]: \"a\" is there twice",
    ),
    (
        "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, fraction: {numerator: 1}}}, {type: RequestMirror, requestMirror: {backendRef: {name: b, port: 1}, percent: 3}}",
        "",
    ),
    (
        "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 1, fraction: {numerator: 1}}}",
        "spec.rules[0].filters[0].requestMirror: has both `percent` and `fraction`",
    ),
    (
        "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, fraction: {numerator: 3, denominator: 2}}}",
        "spec.rules[0].filters[0].requestMirror.fraction.numerator: is more than `denominator`",
    ),
    (
        "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 101}}",
        "spec.rules[0].filters[0].requestMirror.percent: must be from 0 to 100",
    ),
    (
        "{type: RequestMirror, requestMirror: {backendRef: {name: a}}}",
        "spec.rules[0].filters[0].requestMirror.backendRef.port: is required for a Service",
    ),
    ("{type: RequestMirror, requestMirror: {backendRef: {name: a, group: a.b, kind: K}}}", ""),
];

const HTTP_FILTERS: &[(&str, &str)] = &[
    ("{type: RequestRedirect}", "spec.rules[0].filters[0]: the filter's `requestRedirect` is missing"),
    ("{type: URLRewrite}", "spec.rules[0].filters[0]: the filter's `urlRewrite` is missing"),
    ("{type: CORS}", "spec.rules[0].filters[0]: the filter's `cors` is missing"),
    ("{type: ExternalAuth}", "spec.rules[0].filters[0]: the filter's `externalAuth` is missing"),
    ("{type: CORS, cors: {}, urlRewrite: {}}", "spec.rules[0].filters[0].urlRewrite: does not belong"),
    ("{type: CORS, cors: {}, requestRedirect: {}}", "spec.rules[0].filters[0].requestRedirect: does not belong"),
    ("{type: URLRewrite, urlRewrite: {}, cors: {}}", "spec.rules[0].filters[0].cors: does not belong"),
    (
        "{type: URLRewrite, urlRewrite: {}, externalAuth: {protocol: HTTP, http: {}, backendRef: {name: a, port: 1}}}",
        "spec.rules[0].filters[0].externalAuth: does not belong",
    ),
    ("{type: CORS, cors: {}}, {type: CORS, cors: {}}", "spec.rules[0].filters[1]: a filter of this type is there already"),
    ("{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}", "spec.rules[0].filters[1]: a filter of this type is there already"),
    ("{type: RequestRedirect, requestRedirect: {}}, {type: RequestRedirect, requestRedirect: {}}", "spec.rules[0].filters[1]: a filter of this type is there already"),
    ("{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}", "spec.rules[0].filters: URLRewrite and RequestRedirect exclude each other"),
    ("{type: RequestRedirect, requestRedirect: {statusCode: 301, scheme: https, port: 443}}", ""),
    ("{type: RequestRedirect, requestRedirect: {scheme: gopher}}", "spec.rules[0].filters[0].requestRedirect.scheme: \"gopher\" is not one of its values"),
    ("{type: RequestRedirect, requestRedirect: {statusCode: 200}}", "spec.rules[0].filters[0].requestRedirect.statusCode: 200 is not one of its values"),
    ("{type: RequestRedirect, requestRedirect: {hostname: '*.example'}}", "spec.rules[0].filters[0].requestRedirect.hostname: \"*.example\" is not a valid name"),
    ("{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}", "spec.rules[0].filters[0].urlRewrite.path: `replaceFullPath` is missing"),
    ("{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch}}}", "spec.rules[0].filters[0].urlRewrite.path: `replacePrefixMatch` is missing"),
    (
        "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /a, replacePrefixMatch: /b}}}",
        "spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch: does not belong to `type`",
    ),
    (
        "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replaceFullPath: /a, replacePrefixMatch: /b}}}",
        "spec.rules[0].filters[0].urlRewrite.path.replaceFullPath: does not belong to `type`",
    ),
    ("{type: ExternalAuth, externalAuth: {protocol: HTTP, http: {}, backendRef: {name: a, port: 1}}}", ""),
    ("{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: a, port: 1}}}", "spec.rules[0].filters[0].externalAuth: http must be specified when protocol is set to 'HTTP'"),
    ("{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: a, port: 1}}}", "spec.rules[0].filters[0].externalAuth: grpc must be specified when protocol is set to 'GRPC'"),
    ("{type: ExternalAuth, externalAuth: {protocol: GRPC, grpc: {}, http: {}, backendRef: {name: a, port: 1}}}", "spec.rules[0].filters[0].externalAuth: protocol must be 'HTTP' when http is set"),
    ("{type: ExternalAuth, externalAuth: {protocol: HTTP, grpc: {}, http: {}, backendRef: {name: a, port: 1}}}", "spec.rules[0].filters[0].externalAuth: protocol must be 'GRPC' when grpc is set"),
    ("{type: Unknown}", "spec.rules[0].filters[0].type: \"Unknown\" is not one of its values"),
];

const CORS: &[(&str, &str)] = &[
    ("allowOrigins: ['https://a.example', 'http://*.example:8080'], allowMethods: [GET], maxAge: 5", ""),
    ("allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*'], exposeHeaders: ['*']", ""),
    ("allowOrigins: [a]", "spec.rules[0].backendRefs[0].filters[0].cors.allowOrigins[0]: \"a\" is no origin"),
    ("allowOrigins: ['*', 'https://a.example']", "spec.rules[0].backendRefs[0].filters[0].cors.allowOrigins: \"*\" takes everything"),
    ("allowMethods: [GET, '*']", "spec.rules[0].backendRefs[0].filters[0].cors.allowMethods: \"*\" takes everything"),
    ("allowHeaders: ['*', a]", "spec.rules[0].backendRefs[0].filters[0].cors.allowHeaders: \"*\" takes everything"),
    ("allowMethods: [GET, GET]", "spec.rules[0].backendRefs[0].filters[0].cors.allowMethods[1]: \"GET\" is there twice"),
    ("maxAge: 0", "spec.rules[0].backendRefs[0].filters[0].cors.maxAge: must be at least 1"),
];

const HTTP_RULES: &[(&str, &str)] = &[
    ("timeouts: {request: 10s, backendRequest: 2s}", ""),
    ("timeouts: {request: 0s, backendRequest: 2s}", ""),
    ("timeouts: {request: 1s, backendRequest: 2s}", "spec.rules[0].timeouts.backendRequest: is longer than `request`"),
    ("timeouts: {request: 1500ms, backendRequest: 1s}", ""),
    ("timeouts: {request: 1.5s}", "spec.rules[0].timeouts.request: \"1.5s\" is not a duration of Gateway API"),
    ("timeouts: {request: 10}", "spec.rules[0].timeouts.request: must be a string, not integer `10`"),
    ("retry: {codes: [500, 503], attempts: 2, backoff: 10ms}", ""),
    ("retry: {codes: [399]}", "spec.rules[0].retry.codes[0]: must be from 400 to 599"),
    ("backendRefs: [{name: a, port: 1, weight: 0}]", ""),
    ("backendRefs: [{name: a, port: 1, weight: 1000001}]", "spec.rules[0].backendRefs[0].weight: must be from 0 to 1000000"),
    ("backendRefs: [{name: a}]", "spec.rules[0].backendRefs[0].port: is required for a Service"),
    ("backendRefs: [{name: a, kind: InferencePool, group: inference.networking.k8s.io}]", ""),
    (
        "backendRefs: [{name: a, port: 1}], filters: [{type: RequestRedirect, requestRedirect: {}}]",
        "spec.rules[0].backendRefs: exclude the redirect among `filters`",
    ),
    ("backendRefs: [], filters: [{type: RequestRedirect, requestRedirect: {}}]", ""),
    (
        "matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]",
        "spec.rules[0].filters: needs a rule with exactly one match",
    ),
    (
        "matches: [{}, {}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]",
        "spec.rules[0].filters: needs a rule with exactly one match",
    ),
    ("filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]", ""),
    (
        "matches: [{path: {type: Exact, value: /a}}], backendRefs: [{name: a, port: 1, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]",
        "spec.rules[0].backendRefs: needs a rule with exactly one match",
    ),
    (
        "matches: [{path: {type: Exact, value: /a}}], backendRefs: [{name: a, port: 1, filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}]",
        "spec.rules[0].backendRefs: needs a rule with exactly one match",
    ),
    ("sessionPersistence: {sessionName: a, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}", ""),
    ("sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}", "spec.rules[0].sessionPersistence.absoluteTimeout: is required where"),
    ("sessionPersistence: {type: Header, cookieConfig: {}}", "spec.rules[0].sessionPersistence.cookieConfig: does not belong to `type`"),
];

const GRPC_ROUTE: &[(&str, &str)] = &[
    ("", ""),
    ("rules: [{name: a}, {name: a}]", "spec.rules[1].name: two rules are named \"a\""),
    ("rules: [{backendRefs: [{name: a}]}]", "spec.rules[0].backendRefs[0].port: is required for a Service"),
    ("rules: [{sessionPersistence: {type: Header, cookieConfig: {}}}]", "spec.rules[0].sessionPersistence.cookieConfig: does not belong to `type`"),
];

const GRPC_MATCHES: &[(&str, &str)] = &[
    ("{method: {service: a.B, method: C}}", ""),
    ("{method: {type: RegularExpression, service: 'a(b'}}", ""),
    ("{method: {}}", "spec.rules[0].matches[0].method: names neither a service nor a method"),
    ("{method: {service: a/b}}", "spec.rules[0].matches[0].method.service: \"a/b\" is not the name of a service"),
    ("{method: {method: a.b}}", "spec.rules[0].matches[0].method.method: \"a.b\" is not the name of a method"),
    ("{headers: [{name: a, value: b}, {name: a, value: c}]}", "spec.rules[0].matches[0].headers[1].name: \"a\" is there twice"),
];

const TLS_ROUTE: &[(&str, &str)] = &[
    ("hostnames: [a.example, '*.b.example'], rules: [{backendRefs: [{name: a, port: 1}]}]", ""),
    ("rules: [{backendRefs: [{name: a, port: 1}]}]", "spec.hostnames: is required"),
    ("hostnames: [], rules: [{backendRefs: [{name: a, port: 1}]}]", "spec.hostnames: must have at least one item"),
    ("hostnames: [10.0.0.1, a.example], rules: [{backendRefs: [{name: a, port: 1}]}]", "spec.hostnames[0]: \"10.0.0.1\" is not a host's name"),
    ("hostnames: [a_b], rules: [{backendRefs: [{name: a, port: 1}]}]", "spec.hostnames[0]: \"a_b\" is not a host's name"),
    ("hostnames: ['a.*.b'], rules: [{backendRefs: [{name: a, port: 1}]}]", "spec.hostnames[0]: \"a.*.b\" is not a host's name"),
    ("hostnames: [a.example], rules: []", "spec.rules: must have at least one item"),
    ("hostnames: [a.example]", "spec.rules: is required"),
];

const STREAM_RULES: &[(&str, &str)] = &[
    ("{name: a, backendRefs: [{name: b, port: 1, weight: 3}]}", ""),
    ("{backendRefs: []}", "spec.rules[0].backendRefs: must have at least one item"),
    ("{}", "spec.rules[0].backendRefs: is required"),
    ("{backendRefs: [{name: b}]}", "spec.rules[0].backendRefs[0].port: is required for a Service"),
    ("{backendRefs: [{name: b, port: 1}]}, {backendRefs: [{name: b, port: 1}]}", "spec.rules: has 2 items; there may be 1"),
    ("{backendRefs: [{name: b, port: 70000}]}", "spec.rules[0].backendRefs[0].port: must be from 1 to 65535"),
];

const OLD_STREAM_ROUTE: &[(&str, &str)] = &[
    ("hostnames: [a.example], rules: [{backendRefs: [{name: a, port: 1}]}]", ""),
    ("hostnames: [a.example], rules: [{backendRefs: [{name: a}]}]", "spec.rules[0].backendRefs[0].port: is required for a Service"),
    ("hostnames: [a.example], rules: [{name: a, backendRefs: [{name: a, port: 1}]}, {name: a, backendRefs: [{name: a, port: 1}]}]", "spec.rules[1].name: two rules are named \"a\""),
];

const VALIDATION: &[(&str, &str)] = &[
    ("wellKnownCACertificates: System", ""),
    ("caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]", ""),
    ("caCertificateRefs: []", "spec.validation: says nobody who vouches for the backend"),
    ("wellKnownCACertificates: Sistem", "spec.validation.wellKnownCACertificates: \"Sistem\" does not match"),
    ("wellKnownCACertificates: System, caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]", "spec.validation: has both"),
    ("wellKnownCACertificates: System, subjectAltNames: [{type: Hostname, hostname: a.example}, {type: URI, uri: 'spiffe://a/b'}]", ""),
    ("wellKnownCACertificates: System, subjectAltNames: [{type: Hostname}]", "spec.validation.subjectAltNames[0].hostname: is required for this `type`"),
    ("wellKnownCACertificates: System, subjectAltNames: [{type: URI}]", "spec.validation.subjectAltNames[0].uri: is required for this `type`"),
    ("wellKnownCACertificates: System, subjectAltNames: [{type: URI, uri: 'spiffe://a/b', hostname: a.example}]", "spec.validation.subjectAltNames[0].hostname: does not belong to `type`"),
    ("wellKnownCACertificates: System, subjectAltNames: [{type: Hostname, uri: 'spiffe://a/b', hostname: a.example}]", "spec.validation.subjectAltNames[0].uri: does not belong to `type`"),
    ("wellKnownCACertificates: System, subjectAltNames: [{type: URI, uri: a}]", "spec.validation.subjectAltNames[0].uri: \"a\" is not a URI"),
];

const TARGETS: &[(&str, &str)] = &[
    ("{group: '', kind: Service, name: a}, {group: '', kind: Service, name: b}", ""),
    ("{group: '', kind: Service, name: a, sectionName: x}, {group: '', kind: Service, name: a, sectionName: y}", ""),
    ("{group: '', kind: Service, name: a}, {group: '', kind: Service, name: a}", "spec.targetRefs[1]: is named twice"),
    ("{group: '', kind: Service, name: a}, {group: '', kind: Service, name: a, sectionName: y}", "spec.targetRefs[1]: is named twice, once with"),
    ("{kind: Service, name: a}", "spec.targetRefs[0].group: is required"),
    ("", "spec.targetRefs: must have at least one item"),
];

const REFERENCE_GRANT: &[(&str, &str)] = &[
    ("from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}], to: [{group: '', kind: Service}]", ""),
    ("from: [], to: [{group: '', kind: Service}]", "spec.from: must have at least one item"),
    ("from: [{group: '', kind: K, namespace: a}]", "spec.to: is required"),
    ("from: [{group: '', kind: K, namespace: a.b}], to: [{group: '', kind: Service, name: n}]", "spec.from[0].namespace: \"a.b\" is not a valid namespace"),
    ("from: [{group: '', kind: K}], to: [{group: '', kind: Service, name: ''}]", "spec.from[0].namespace: is required | spec.to[0].name: must not be empty"),
];
