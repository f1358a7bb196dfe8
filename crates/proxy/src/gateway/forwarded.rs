//! What a request's next reader is told about where it came from: `X-Forwarded-For`, `-Proto` and,
//! where the host is rewritten, `-Host`.
//!
//! As Envoy does at an edge: the client's address is appended, and what an untrusted client says of
//! itself is not believed. Stricter than Envoy in one thing: such a client's own entries of
//! `X-Forwarded-For` are taken out, for too many readers believe the first. With `n` trusted hops
//! the last `n` entries that came are kept, and protocol and host as the hop before says.
//! `Forwarded` (RFC 7239) passes from a trusted hop and is taken out of what others send.

use std::net::IpAddr;

use wire::{Fields, RequestHead};

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";
const FORWARDED: &str = "forwarded";

/// For the requests of one connection.
pub(super) struct Forwarded {
    client: Box<str>,
    proto: &'static [u8],
    trusted_hops: usize,
}

impl Forwarded {
    pub(super) fn new(client: IpAddr, tls: bool, trusted_hops: u32) -> Self {
        Self {
            client: client.to_canonical().to_string().into(),
            proto: if tls { b"https" } else { b"http" },
            trusted_hops: usize::try_from(trusted_hops).unwrap_or(usize::MAX),
        }
    }

    /// Writes the fields; the client that a trusted hop names, if there is one.
    pub(super) fn write(&self, head: &mut RequestHead) -> Option<IpAddr> {
        let fields = &mut head.fields;
        let trusted = self.trusted_hops > 0;
        let mut chain = Vec::new();
        let mut told = None;
        if trusted {
            (chain, told) = believed(fields, self.trusted_hops);
        } else {
            fields.remove(FORWARDED);
        }
        // Not replaced in place: a head that is too full for the new value must not keep the old.
        fields.remove(FOR);
        if chain.is_empty() {
            fields.append(FOR, self.client.as_bytes());
        } else {
            chain.extend_from_slice(b", ");
            chain.extend_from_slice(self.client.as_bytes());
            fields.append(FOR, &chain);
        }
        if !trusted {
            fields.remove(HOST);
            fields.remove(PROTO);
        }
        if !fields.contains(PROTO) {
            fields.append(PROTO, self.proto);
        }
        told
    }
}

/// Notes the host that was asked for, where a rewrite puts another in its place.
pub(crate) fn keep_host(head: &mut RequestHead) {
    if !head.fields.contains(HOST) && !head.authority.is_empty() {
        head.fields.append(HOST, head.authority.as_bytes());
    }
}

/// The last entries of `X-Forwarded-For`, as many as there are trusted hops, and the first of them:
/// whom the outermost hop saw. With fewer entries somebody has come round a hop.
fn believed(fields: &Fields, hops: usize) -> (Vec<u8>, Option<IpAddr>) {
    let entries: Vec<&[u8]> = fields
        .get_all(FOR)
        .flat_map(|value| value.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|entry| !entry.is_empty())
        .collect();
    let kept = &entries[entries.len().saturating_sub(hops)..];
    let first = kept.first().filter(|_| kept.len() == hops);
    let client = first.and_then(|entry| std::str::from_utf8(entry).ok()?.parse().ok());
    (kept.join(&b", "[..]), client)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.7";

    /// The fields that come out, and who is believed to be the client.
    fn written(hops: u32, tls: bool, sent: &[(&str, &str)]) -> (Vec<String>, Option<IpAddr>) {
        let mut head = RequestHead::new();
        head.authority = "a.example".to_owned();
        for (name, value) in sent {
            head.fields.append(name, value.as_bytes());
        }
        let client = CLIENT.parse().expect("an address");
        let told = Forwarded::new(client, tls, hops).write(&mut head);
        let fields = [FOR, PROTO, HOST, FORWARDED].map(|name| {
            let all: Vec<_> = head
                .fields
                .get_all(name)
                .map(String::from_utf8_lossy)
                .collect();
            format!("{name}: {}", all.join(" | "))
        });
        (fields.to_vec(), told)
    }

    #[test]
    fn what_an_untrusted_client_says_of_itself_is_overwritten() {
        let lies = [
            ("X-Forwarded-For", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2, 10.0.0.3"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "bank.example"),
            ("Forwarded", "for=10.0.0.1"),
        ];
        for sent in [&lies[..], &[]] {
            let want = [
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-proto: http",
                "x-forwarded-host: ",
                "forwarded: ",
            ];
            assert_eq!(
                written(0, false, sent),
                (want.map(str::to_owned).into(), None)
            );
        }
        assert_eq!(written(0, true, &[]).0[1], "x-forwarded-proto: https");
    }

    #[test]
    fn of_trusted_hops_as_many_entries_are_believed_as_there_are_hops() {
        let chain = ("X-Forwarded-For", "6.6.6.6, 198.51.100.1 ,10.0.0.2");
        for (hops, want, told) in [
            (1, "10.0.0.2, 192.0.2.7", Some("10.0.0.2")),
            (2, "198.51.100.1, 10.0.0.2, 192.0.2.7", Some("198.51.100.1")),
            (4, "6.6.6.6, 198.51.100.1, 10.0.0.2, 192.0.2.7", None),
        ] {
            let (fields, client) = written(hops, false, &[chain]);
            assert_eq!(fields[0], format!("x-forwarded-for: {want}"), "{hops} hops");
            assert_eq!(
                client,
                told.map(|t| t.parse().expect("an address")),
                "{hops} hops"
            );
        }
        let (fields, client) = written(1, false, &[]);
        assert_eq!((&*fields[0], client), ("x-forwarded-for: 192.0.2.7", None));
    }

    #[test]
    fn a_trusted_hop_says_which_protocol_and_host_were_asked_for() {
        let sent = [
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "shop.example"),
            ("Forwarded", "for=10.0.0.1"),
        ];
        let (fields, _) = written(1, false, &sent);
        assert_eq!(
            fields[1..],
            [
                "x-forwarded-proto: https",
                "x-forwarded-host: shop.example",
                "forwarded: for=10.0.0.1"
            ]
        );
        assert_eq!(written(1, false, &[]).0[1], "x-forwarded-proto: http");
    }

    #[test]
    fn the_host_is_noted_where_nobody_has_named_one() {
        for (sent, want) in [(None, "a.example"), (Some("shop.example"), "shop.example")] {
            let mut head = RequestHead::new();
            head.authority = "a.example".to_owned();
            if let Some(sent) = sent {
                head.fields.append(HOST, sent.as_bytes());
            }
            keep_host(&mut head);
            let all: Vec<_> = head.fields.get_all(HOST).collect();
            assert_eq!(all, [want.as_bytes()]);
        }
    }
}
