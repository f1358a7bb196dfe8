//! Random input, shaped so that much of it is nearly right; what must hold is in `fuzz/checks`.
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use wire::{Length, Limits, Method, ResponseHead, Version, encode_response, parse_response};

#[path = "../../../../fuzz/checks/wire.rs"]
mod checks;

/// Pieces that heads are made of, in good and in bad spellings.
fn head_piece() -> impl Strategy<Value = Vec<u8>> {
    let known = select(vec![
        "Host: a\r\n",
        "Host: a:8080\r\n",
        "host: b\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "content-length: +5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Connection: close\r\n",
        "Connection: keep-alive, x-a, upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Expect: 100-continue\r\n",
        "TE: trailers\r\n",
        "X-A: 1\r\n",
        "Cookie: a=b\r\n",
        "X:\r\n",
        " folded\r\n",
        "\r\n",
        "\n",
        "\r",
        ":",
        " ",
        "\t",
        "\0",
        "GET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
    ]);
    prop_oneof![
        8 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..8),
        1 => "[A-Za-z-]{1,20}: [ -~]{0,40}\r\n".prop_map(String::into_bytes),
    ]
}

fn message(first: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (select(first), vec(head_piece(), 0..12), any::<bool>()).prop_map(|(first, pieces, ends)| {
        let mut bytes = first.as_bytes().to_vec();
        bytes.extend(pieces.concat());
        if ends {
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    })
}

fn chunk_piece() -> impl Strategy<Value = Vec<u8>> {
    let known = select(vec![
        "5\r\nhello\r\n",
        "0a;x=y\r\n0123456789\r\n",
        "1;q=\"a\\\"b\"\r\nz\r\n",
        "0\r\n\r\n",
        "0\r\n",
        "x-sum: 1\r\n",
        "content-length: 5\r\n",
        "te: x\r\n",
        "\r\n",
        "\r",
        "\n",
        ";",
        "ffffffffffffffff\r\n",
        "0000000000000000\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ]);
    prop_oneof![
        8 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..6),
        2 => vec(any::<u8>(), 1..40).prop_map(|data| {
            let mut chunk = format!("{:X}\r\n", data.len()).into_bytes();
            chunk.extend(data);
            chunk.extend_from_slice(b"\r\n");
            chunk
        }),
    ]
}

/// What is done to the fields of a head between reading and writing it.
#[derive(Clone, Debug)]
enum Change {
    Append(&'static str, Vec<u8>),
    Set(&'static str, Vec<u8>),
    Remove(&'static str),
    KeepShort,
    Clone,
}

fn change() -> impl Strategy<Value = Change> {
    let name = || select(vec!["a", "A", "B-c", "x-long-name", "b-C", "Cookie"]);
    let value = || "[ -~]{0,12}".prop_map(|text| text.trim().as_bytes().to_vec());
    prop_oneof![
        3 => (name(), value()).prop_map(|(name, value)| Change::Append(name, value)),
        3 => (name(), value()).prop_map(|(name, value)| Change::Set(name, value)),
        1 => name().prop_map(Change::Remove),
        1 => Just(Change::KeepShort),
        1 => Just(Change::Clone),
    ]
}

/// The same in the plainest form.
fn apply(list: &mut Vec<(String, Vec<u8>)>, change: &Change) {
    match change {
        Change::Append(name, value) => list.push(((*name).to_owned(), value.clone())),
        Change::Set(name, value) => {
            match list
                .iter()
                .position(|(one, _)| one.eq_ignore_ascii_case(name))
            {
                None => list.push(((*name).to_owned(), value.clone())),
                Some(at) => {
                    list[at].1.clone_from(value);
                    let mut index = 0;
                    list.retain(|(one, _)| {
                        index += 1;
                        index <= at + 1 || !one.eq_ignore_ascii_case(name)
                    });
                }
            }
        }
        Change::Remove(name) => list.retain(|(one, _)| !one.eq_ignore_ascii_case(name)),
        Change::KeepShort => list.retain(|(_, value)| value.len() < 6),
        Change::Clone => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests(bytes in message(&[
        "GET / HTTP/1.1\r\n", "POST /a?b HTTP/1.1\r\n", "GET http://c:81/d HTTP/1.1\r\n", "CONNECT e:443 HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "\r\n\r\nGET / HTTP/1.1\r\n", "",
    ])) {
        checks::request_head(&bytes);
    }

    #[test]
    fn responses(bytes in message(&[
        "HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.1 204 \r\n", "HTTP/1.1 304\r\n", "HTTP/1.1 101 S\r\n",
        "HTTP/1.1 100 C\r\n", "HTTP/1.1 205 R\r\n", "",
    ])) {
        checks::response_head(&bytes);
    }

    #[test]
    fn content(pieces in vec(chunk_piece(), 0..12)) {
        checks::chunked(&pieces.concat());
    }

    /// However a head was changed, what is written is its fields, line by line.
    #[test]
    fn fields(
        lines in vec(("[A-Ca-c-]{1,6}", select(vec![": ", ":", ":\t", ":  "]), "[!-~]{0,10}", select(vec!["", " "])), 0..8),
        changes in vec(change(), 0..8),
    ) {
        let mut bytes = b"HTTP/1.1 204 N\r\n".to_vec();
        let mut list = Vec::new();
        for (name, colon, value, blank) in lines {
            bytes.extend(format!("{name}{colon}{value}{blank}\r\n").into_bytes());
            list.push((name, value.into_bytes()));
        }
        bytes.extend_from_slice(b"\r\n");
        let mut head = ResponseHead::new();
        parse_response(&bytes, &mut 0, &Limits::default(), &Method::GET, &mut head).unwrap().unwrap();
        for change in changes {
            apply(&mut list, &change);
            match change {
                Change::Append(name, value) => head.fields.append(name, &value),
                Change::Set(name, value) => head.fields.set(name, &value),
                Change::Remove(name) => drop(head.fields.remove(name)),
                Change::KeepShort => head.fields.retain(|_, value| value.len() < 6),
                Change::Clone => head = head.clone(),
            }
        }
        let size = list.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        prop_assert_eq!((head.fields.len(), head.fields.size()), (list.len(), size));
        let mut expected = b"HTTP/1.1 204 N\r\n".to_vec();
        for (name, value) in &list {
            expected.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        expected.extend_from_slice(b"\r\n");
        let mut out = Vec::new();
        encode_response(&head, Version::HTTP_11, Length::None, true, &mut out);
        prop_assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }
}
