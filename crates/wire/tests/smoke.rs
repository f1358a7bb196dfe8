//! The shortest way through the crate.
use bytes::BytesMut;
use wire::*;

#[test]
fn a_request_passes() {
    let bytes = b"POST /a?b HTTP/1.1\r\nUser-Agent:  x \r\nHOST: Example:8080\r\nConnection: keep-alive, X-Drop\r\nx-drop: 1\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\nrest";
    let mut head = RequestHead::new();
    let mut scanned = 0;
    let (n, framing) = parse_request(bytes, &mut scanned, &Limits::default(), &mut head)
        .unwrap()
        .unwrap();
    assert_eq!(framing.length, Length::Chunked);
    assert!(framing.keep_alive && framing.te_trailers && !framing.upgrade);
    assert_eq!(
        (head.path.as_str(), head.host(), head.port()),
        ("/a?b", "Example", Some(8080))
    );
    let mut out = Vec::new();
    encode_request(
        &head,
        &Target {
            authority: "other",
            path: "/c",
        },
        framing.length,
        false,
        true,
        &mut out,
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "POST /c HTTP/1.1\r\nUser-Agent: x\r\nHOST: other\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: te\r\n\r\n"
    );
    let mut buf = BytesMut::from(&bytes[n..]);
    let mut decoder = Decoder::new(framing.length, &Limits::default());
    let Event::Data(data) = decoder.decode(&mut buf, false).unwrap() else {
        panic!("no data")
    };
    assert_eq!(&data[..], b"hello");
    let Event::Trailers(trailers) = decoder.decode(&mut buf, false).unwrap() else {
        panic!("no trailers")
    };
    assert_eq!(trailers.get_str("X-Sum"), Some("1"));
    assert!(decoder.is_done());
    assert_eq!(&buf[..], b"rest");
}

#[test]
fn a_response_passes() {
    let bytes = b"HTTP/1.1 200 Fine\r\nX-A: 1\r\ncontent-length: 2\r\n\r\nok";
    let mut head = ResponseHead::new();
    let (n, framing) = parse_response(bytes, &mut 0, &Limits::default(), &Method::GET, &mut head)
        .unwrap()
        .unwrap();
    assert_eq!(
        (n, framing.length, framing.keep_alive),
        (bytes.len() - 2, Length::Known(2), true)
    );
    let mut out = Vec::new();
    encode_response(&head, Version::HTTP_10, framing.length, true, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 200 Fine\r\nX-A: 1\r\ncontent-length: 2\r\nConnection: keep-alive\r\n\r\n"
    );
}
