//! One line of the access log: an object whose keys are always the same.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use model::Reason;

use super::{Entry, MAX_TEXT};
use crate::hex;

impl Entry<'_> {
    /// The line, with its newline.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(768);
        self.write_to(&mut line);
        line
    }

    /// Appends the line, with its newline.
    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        let mut line = Line {
            out,
            separator: b"{\"",
        };
        line.time(self.time);
        line.hex("trace_id", self.trace_id.as_ref().map(<[u8; 16]>::as_slice));
        line.hex("span_id", self.span_id.as_ref().map(<[u8; 8]>::as_slice));
        line.text("request_id", self.request_id);
        line.text("direction", self.direction.as_str());
        line.text("method", self.method);
        line.text("authority", without_userinfo(self.authority));
        line.text("path", without_query(self.path));
        line.text("protocol", self.protocol);
        line.number("status", u64::from(self.status));
        line.optional("grpc_status", self.grpc_status.map(u64::from));
        line.text("reason", self.reason.map_or("", Reason::as_str));
        line.text("details", self.details);
        line.millis("duration_ms", Some(self.duration));
        line.millis("upstream_duration_ms", self.upstream_duration);
        line.number("request_bytes", self.request_bytes);
        line.number("response_bytes", self.response_bytes);
        line.text("source", self.source);
        line.text("source_principal", self.source_principal);
        line.address("source_address", self.source_address);
        line.text("destination", self.destination);
        line.text("destination_workload", self.destination_workload);
        line.text("destination_version", self.destination_version);
        line.text("destination_principal", self.destination_principal);
        line.text("route", self.route);
        line.address("upstream_address", self.upstream_address);
        line.number("attempts", u64::from(self.attempts));
        line.raw("mtls", if self.mtls { "true" } else { "false" });
        line.text("tls_group", self.tls_group);
        line.text("user_agent", self.user_agent);
        line.out.extend_from_slice(b"}\n");
    }
}

fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or(path)
}

fn without_userinfo(authority: &str) -> &str {
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// An object being written.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    separator: &'static [u8],
}

impl Line<'_> {
    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(self.separator);
        self.separator = b",\"";
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn raw(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.extend_from_slice(value.as_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let value = &value[..value.floor_char_boundary(MAX_TEXT)];
        let plain = |b: u8| b >= b' ' && b != b'"' && b != b'\\';
        if value.bytes().all(plain) {
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        } else {
            // Writing a string into memory has no way to fail.
            let _ = serde_json::to_writer(&mut *self.out, value);
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        decimal(self.out, value, 1);
    }

    fn optional(&mut self, key: &str, value: Option<u64>) {
        match value {
            Some(value) => self.number(key, value),
            None => self.raw(key, "null"),
        }
    }

    fn millis(&mut self, key: &str, value: Option<Duration>) {
        let Some(value) = value else {
            return self.raw(key, "null");
        };
        self.key(key);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        decimal(self.out, micros / 1000, 1);
        self.out.push(b'.');
        decimal(self.out, micros % 1000, 3);
    }

    fn hex(&mut self, key: &str, value: Option<&[u8]>) {
        self.key(key);
        self.out.push(b'"');
        let (value, start) = (value.unwrap_or_default(), self.out.len());
        self.out.resize(start + value.len() * 2, 0);
        hex::write(value, &mut self.out[start..]);
        self.out.push(b'"');
    }

    fn address(&mut self, key: &str, value: Option<SocketAddr>) {
        use std::io::Write;
        self.key(key);
        self.out.push(b'"');
        match value {
            Some(SocketAddr::V4(address)) => {
                for (n, part) in address.ip().octets().into_iter().enumerate() {
                    if n > 0 {
                        self.out.push(b'.');
                    }
                    decimal(self.out, u64::from(part), 1);
                }
                self.out.push(b':');
                decimal(self.out, u64::from(address.port()), 1);
            }
            Some(address) => {
                debug_assert!(matches!(address.ip(), IpAddr::V6(_)));
                let _ = write!(self.out, "{address}");
            }
            None => {}
        }
        self.out.push(b'"');
    }

    /// RFC 3339 with microseconds, in UTC.
    fn time(&mut self, time: SystemTime) {
        self.key("time");
        let t = time::OffsetDateTime::from(time);
        let parts = [
            (u64::try_from(t.year()).unwrap_or_default(), 4, b'-'),
            (u64::from(u8::from(t.month())), 2, b'-'),
            (u64::from(t.day()), 2, b'T'),
            (u64::from(t.hour()), 2, b':'),
            (u64::from(t.minute()), 2, b':'),
            (u64::from(t.second()), 2, b'.'),
            (u64::from(t.microsecond()), 6, b'Z'),
        ];
        self.out.push(b'"');
        for (value, width, end) in parts {
            decimal(self.out, value, width);
            self.out.push(end);
        }
        self.out.push(b'"');
    }
}

/// Appends a number in decimal, with leading zeros up to `width`.
fn decimal(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let at = at.min(digits.len() - width);
    out.extend_from_slice(&digits[at..]);
}
