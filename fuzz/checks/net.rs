//! What must hold of `net` for any bytes at all. Used by the fuzz targets and by the test that
//! replays their corpus.
#![allow(dead_code, reason = "each user takes its part")]

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use net::detect::{self, ClientHello, Sniff};
use net::proxy_protocol::{self, MAX_V1, MAX_V2, Parsed, Version};
use tokio::io::{AsyncRead, ReadBuf};

/// The first byte says in what pieces the others arrive.
pub(crate) fn client_hello(data: &[u8]) {
    let Some((&pieces, bytes)) = data.split_first() else {
        return;
    };
    let whole = detect::client_hello(bytes);
    if let ClientHello::Found {
        sni: Some(name), ..
    } = &whole
    {
        assert_eq!(*name, name.to_ascii_lowercase());
        assert!(
            (1..=253).contains(&name.len()) && name.is_ascii(),
            "{name:?}"
        );
        assert!(name.parse::<std::net::IpAddr>().is_err(), "{name:?}");
        assert_eq!(detect::sniff(bytes), Sniff::Tls);
    }
    // However it is cut, the answer is the same, and nothing is lost of what was read.
    let mut stream = Pieces {
        left: bytes,
        size: usize::from(pieces).max(1) * 7,
    };
    let mut buffer = BytesMut::new();
    let read = {
        let mut read = pin!(detect::read_client_hello(&mut stream, &mut buffer));
        let mut cx = Context::from_waker(Waker::noop());
        match read.as_mut().poll(&mut cx) {
            Poll::Ready(Ok(read)) => read,
            other => panic!("the stream never waits and never fails: {other:?}"),
        }
    };
    match whole {
        // The end of the stream decides.
        ClientHello::NeedMore => assert_eq!(read, ClientHello::Invalid),
        whole => assert_eq!(read, whole),
    }
    assert!(bytes.starts_with(&buffer));
}

pub(crate) fn proxy_header(data: &[u8]) {
    let whole = proxy_protocol::parse(data);
    // More bytes may decide, but never change a decision.
    let mut decided = Parsed::NeedMore;
    for end in 0..=data.len().min(300) {
        let now = proxy_protocol::parse(&data[..end]);
        assert!(
            decided == Parsed::NeedMore || now == decided,
            "{decided:?}, then {now:?}"
        );
        decided = now;
    }
    assert!(decided == Parsed::NeedMore || decided == whole);
    let Parsed::Header(header, length) = whole else {
        assert!(whole != Parsed::NeedMore || data.len() < MAX_V2);
        return;
    };
    assert!(length <= data.len() && length <= MAX_V2);
    let version = if data.starts_with(proxy_protocol::V1_PREFIX) {
        assert!(length <= MAX_V1);
        Version::V1
    } else {
        Version::V2
    };
    assert!(
        header
            .tlvs()
            .map(|(_, value)| 3 + value.len())
            .sum::<usize>()
            < length
    );
    let Some(addresses) = header.addresses else {
        return;
    };
    assert_eq!(addresses.source.is_ipv4(), addresses.destination.is_ipv4());
    // What was understood can be said again; the text of version 1 is not always the shortest.
    let again = header.encode(version);
    let Parsed::Header(read, n) = proxy_protocol::parse(&again) else {
        panic!("not read back: {}", again.escape_ascii());
    };
    assert_eq!((&read, n), (&header, again.len()));
    if version == Version::V2 {
        assert_eq!(again, data[..length]);
    }
}

/// A stream that has all there is at once, in pieces, and then ends.
struct Pieces<'a> {
    left: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let n = self.size.min(self.left.len()).min(buf.remaining());
        let (now, left) = self.left.split_at(n);
        buf.put_slice(now);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}
