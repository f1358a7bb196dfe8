//! What came of a request, without what differs between the two on purpose (docs/envoy.md).

use std::time::Duration;

use testkit::certs::anonymous_client_config;
use testkit::raw::Raw;

/// Fields of requests that say who sent them on, and how it names them.
const REQUEST: [&str; 9] = [
    "x-request-id",
    "x-request-deadline",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-envoy-",
    "traceparent",
    "connection",
    "via",
];
/// Fields of responses that say who made them or when, or how the connection goes on.
const RESPONSE: [&str; 8] = [
    "date",
    "server",
    "proxy-status",
    "x-envoy-",
    "x-request-id",
    "connection",
    "transfer-encoding",
    "content-length",
];

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// Who answered; `None`: the proxy did.
    pub(crate) backend: Option<String>,
    /// The request's first line and fields as the back end saw them, where it shows them.
    seen: Vec<String>,
    /// The response's fields.
    fields: Vec<String>,
    /// How many requests back ends saw.
    pub(crate) tries: usize,
}

impl Outcome {
    /// Asks for it in the clear.
    pub(crate) fn of(port: u16, line: &str, host: &str, fields: &[&str]) -> Self {
        let raw = Raw::connect(("127.0.0.1", port)).unwrap();
        Self::over(raw, port, line, host, fields)
    }

    /// Asks for it inside TLS, with the host as server name.
    pub(crate) fn of_secure(port: u16, line: &str, host: &str) -> Self {
        let config = anonymous_client_config(&[b"http/1.1"]);
        let raw = Raw::connect_tls(("127.0.0.1", port), config, host).unwrap();
        Self::over(raw, port, line, host, &[])
    }

    fn over(mut raw: Raw, port: u16, line: &str, host: &str, fields: &[&str]) -> Self {
        let mut text = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for field in fields {
            text += field;
            text += "\r\n";
        }
        raw.send(text + "\r\n").unwrap();
        let response = raw.response(Duration::from_secs(20)).unwrap();
        let backend = response.header("x-backend").map(str::to_owned);
        let own = format!(":{port}/");
        let mut fields: Vec<String> = response
            .headers
            .iter()
            .filter(|(name, _)| !named(&RESPONSE, name))
            // A proxy's own words are its own.
            .filter(|(name, _)| backend.is_some() || name != "content-type")
            // Envoy writes the usual ports too.
            .map(|(name, value)| {
                let value = value
                    .replace(&own, ":PORT/")
                    .replace(".test:443/", ".test/");
                format!("{name}: {value}")
            })
            .collect();
        fields.sort();
        let shown = response.status == 200 && backend.is_some();
        let status = match response.status {
            // Envoy has one status for all that goes wrong with a connection.
            502 if backend.is_none() => 503,
            status => status,
        };
        Self {
            status,
            backend,
            seen: if shown {
                seen(&response.text())
            } else {
                Vec::new()
            },
            fields,
            tries: 0,
        }
    }
}

fn named(names: &[&str], name: &str) -> bool {
    names
        .iter()
        .any(|known| *known == name || (known.ends_with('-') && name.starts_with(known)))
}

/// A request's head in a form that can be compared: names in lower case, in order.
fn seen(head: &str) -> Vec<String> {
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let mut fields: Vec<String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .filter(|(name, _)| !named(&REQUEST, name))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    fields.sort();
    fields.insert(0, first);
    fields
}
