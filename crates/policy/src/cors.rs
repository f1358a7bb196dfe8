//! Cross-origin resource sharing (Fetch Standard 3.3; Gateway API's HTTPCORSFilter).

use http::Method;
use model::route::{Cors, Listed};
use wire::Fields;

/// What becomes of a request that a page of some origin has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The browser asks whether it may send a request: this is the response's head, and nobody else is
    /// asked. An origin that may not gets one that says nothing of the matter.
    Preflight(Fields),
    /// Fields that the response gets, in place of what it says of the matter.
    Response(Fields),
}

impl Answer {
    /// What browsers look at beside the response itself.
    const VARY: &str = "vary";

    /// Puts the fields into a response.
    pub fn apply(fields: &Fields, response: &mut Fields) {
        for (name, value) in fields {
            // Names of this module, which are text.
            let name = std::str::from_utf8(name).unwrap_or_default();
            if name == Self::VARY {
                response.append(name, value);
            } else {
                response.set(name, value);
            }
        }
    }
}

/// Decides about a request; `None` for one that no page has sent, or one of an origin that gets no
/// say.
pub fn cors(cors: &Cors, method: &Method, request: &Fields) -> Option<Answer> {
    let origin = request.get_str("origin")?;
    let asked = request.get("access-control-request-method");
    let asked = asked.filter(|_| *method == Method::OPTIONS);
    let mut fields = Fields::new();
    let allowed = match &cors.origins {
        Listed::All => true,
        Listed::Only(list) => list.iter().any(|one| one.matches(origin)),
    };
    if !allowed {
        return asked.map(|_| Answer::Preflight(fields));
    }
    let mut add = |name, value: &[u8]| fields.append(name, value);
    // A response for one origin must not be kept for another.
    let one = cors.credentials || cors.origins != Listed::All;
    let to = if one { origin } else { "*" };
    add("access-control-allow-origin", to.as_bytes());
    if cors.credentials {
        add("access-control-allow-credentials", b"true");
    }
    match &cors.exposed {
        // With credentials the star is a name like others.
        Listed::All if cors.credentials => {}
        Listed::All => add("access-control-expose-headers", b"*"),
        Listed::Only(list) => listed(&mut add, "access-control-expose-headers", list),
    }
    let Some(asked) = asked else {
        if one {
            add(Answer::VARY, b"origin");
        }
        return Some(Answer::Response(fields));
    };
    match &cors.methods {
        Listed::All => add("access-control-allow-methods", asked),
        Listed::Only(list) => listed(&mut add, "access-control-allow-methods", list),
    }
    match &cors.headers {
        // What it asks for rather than a star, which would not stand for `authorization`.
        Listed::All => {
            if let Some(asked) = request.get("access-control-request-headers") {
                add("access-control-allow-headers", asked);
            }
        }
        Listed::Only(list) => listed(&mut add, "access-control-allow-headers", list),
    }
    add(
        "access-control-max-age",
        cors.max_age.to_string().as_bytes(),
    );
    add(
        Answer::VARY,
        b"origin, access-control-request-method, access-control-request-headers",
    );
    Some(Answer::Preflight(fields))
}

fn listed<T: AsRef<str>>(
    add: &mut impl FnMut(&'static str, &[u8]),
    name: &'static str,
    list: &[T],
) {
    if !list.is_empty() {
        let list: Vec<&str> = list.iter().map(AsRef::as_ref).collect();
        add(name, list.join(", ").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use model::route::OriginMatch;

    use super::*;

    fn only<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Listed<T> {
        Listed::Only(texts.iter().map(|t| t.parse().expect(t)).collect())
    }

    fn policy() -> Cors {
        Cors {
            origins: only(&[
                "https://www.foo.com",
                "https://*.bar.com",
                "http://a.test:81",
            ]),
            credentials: true,
            methods: only(&["GET", "OPTIONS"]),
            headers: only(&["x-header-1", "x-header-2"]),
            exposed: only(&["x-header-3"]),
            max_age: 3600,
        }
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields.append(name, value.as_bytes());
        }
        fields
    }

    fn preflight(policy: &Cors, origin: &str) -> Fields {
        let asked = fields(&[
            ("Origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-a, authorization"),
        ]);
        match cors(policy, &Method::OPTIONS, &asked) {
            Some(Answer::Preflight(fields)) => fields,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_origin_matches_by_scheme_host_and_port() {
        for (written, origin, matches) in [
            ("https://www.foo.com", "https://www.foo.com", true),
            ("https://www.foo.com", "https://WWW.foo.com", true),
            ("https://www.foo.com", "https://www.foo.com:443", true),
            ("https://www.foo.com:443", "https://www.foo.com", true),
            ("https://www.foo.com", "http://www.foo.com", false),
            ("https://www.foo.com", "https://www.foo.com:8443", false),
            ("https://www.foo.com", "https://evil-www.foo.com", false),
            (
                "https://www.foo.com",
                "https://www.foo.com.evil.test",
                false,
            ),
            ("https://*.bar.com", "https://www.bar.com", true),
            ("https://*.bar.com", "https://a.b.bar.com", true),
            ("https://*.bar.com", "https://bar.com", false),
            ("https://*.bar.com", "https://.bar.com", false),
            ("https://*.bar.com", "https://evilbar.com", false),
            ("https://*", "https://any.where", true),
            ("https://*", "https://any.where:444", false),
            ("https://*:444", "https://any.where:444", true),
            ("http://[::1]", "http://[::1]", false),
            ("https://www.foo.com", "null", false),
            ("https://www.foo.com", "", false),
        ] {
            match written.parse::<OriginMatch>() {
                Ok(one) => {
                    assert_eq!(one.matches(origin), matches, "{written} {origin}");
                    assert_eq!(one.to_string().parse(), Ok(one), "{written}");
                }
                Err(_) => assert!(!matches, "{written}"),
            }
        }
        for text in [
            "",
            "*",
            "foo.com",
            "ftp://foo.com",
            "https://",
            "https://a b",
            "https://a:0",
        ] {
            assert!(text.parse::<OriginMatch>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_preflight_is_answered_with_what_is_allowed() {
        let answer = preflight(&policy(), "https://www.foo.com");
        for (name, value) in [
            ("access-control-allow-origin", "https://www.foo.com"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-header-1, x-header-2"),
            ("access-control-expose-headers", "x-header-3"),
            ("access-control-max-age", "3600"),
        ] {
            assert_eq!(answer.get_str(name), Some(value), "{name}");
        }
        assert!(preflight(&policy(), "https://else.test").is_empty());
    }

    #[test]
    fn a_star_with_credentials_names_what_was_asked_for() {
        let all = Cors {
            origins: Listed::All,
            methods: Listed::All,
            headers: Listed::All,
            exposed: Listed::All,
            ..policy()
        };
        let answer = preflight(&all, "https://else.test");
        for (name, value) in [
            ("access-control-allow-origin", Some("https://else.test")),
            ("access-control-allow-methods", Some("PUT")),
            ("access-control-allow-headers", Some("x-a, authorization")),
            ("access-control-expose-headers", None),
        ] {
            assert_eq!(answer.get_str(name), value, "{name}");
        }
        let open = Cors {
            credentials: false,
            ..all
        };
        let answer = preflight(&open, "null");
        assert_eq!(answer.get_str("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.get_str("access-control-expose-headers"), Some("*"));
        assert!(!answer.contains("access-control-allow-credentials"));
    }

    #[test]
    fn a_response_says_who_may_read_it_and_only_to_them() {
        let ask = |method: Method, pairs: &[(&str, &str)]| cors(&policy(), &method, &fields(pairs));
        assert_eq!(ask(Method::GET, &[]), None);
        assert_eq!(ask(Method::GET, &[("origin", "https://else.test")]), None);
        let Some(Answer::Response(own)) = ask(Method::GET, &[("origin", "http://a.test:81")])
        else {
            panic!("no answer");
        };
        let mut response = fields(&[
            ("Access-Control-Allow-Origin", "*"),
            ("Vary", "accept"),
            ("x-header-3", "x"),
        ]);
        Answer::apply(&own, &mut response);
        let origins: Vec<_> = response.get_all("access-control-allow-origin").collect();
        assert_eq!(origins, [b"http://a.test:81"]);
        let vary: Vec<_> = response.get_all("vary").collect();
        assert_eq!(vary, [b"accept".as_slice(), b"origin"]);
        assert!(!response.contains("access-control-max-age"));
        // OPTIONS without the question is a request like others.
        let plain = ask(Method::OPTIONS, &[("origin", "http://a.test:81")]);
        assert!(matches!(plain, Some(Answer::Response(_))), "{plain:?}");
    }
}
