//! Every byte.

use crate::show::request;

/// Each byte in each place, against the words of the RFCs.
#[test]
fn every_byte_has_its_places() {
    let head = |method: &[u8], target: &[u8], name: &[u8], value: &[u8]| {
        let parts = [
            method,
            b" ",
            target,
            b" HTTP/1.1\r\nHost: h\r\n",
            name,
            b": ",
            value,
            b"\r\n\r\n",
        ];
        request(&parts.concat())
    };
    let is_read = |line: &str| !line.starts_with("400") && line != "more";
    for byte in 0..=u8::MAX {
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let value = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let target = byte.is_ascii_graphic() && byte != b'#';
        for before in [0, 1, 6, 7, 8, 9, 17] {
            let mut bytes = vec![b'x'; 20];
            bytes[before] = byte;
            let place = format!("byte {byte:#x} at {before}");
            assert_eq!(
                is_read(&head(&bytes, b"/", b"a", b"b")),
                token,
                "{place} of a method"
            );
            assert_eq!(
                is_read(&head(b"GET", b"/", b"a", &bytes)),
                value,
                "{place} of a value"
            );
            // A colon ends the name.
            let name = token || byte == b':' && before > 0;
            assert_eq!(
                is_read(&head(b"GET", b"/", &bytes, b"b")),
                name,
                "{place} of a name"
            );
            bytes.insert(0, b'/');
            assert_eq!(
                is_read(&head(b"GET", &bytes, b"a", b"b")),
                target,
                "{place} of a target"
            );
        }
        let host = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
        let line = [
            b"GET / HTTP/1.1\r\nHost: a".as_slice(),
            &[byte],
            b"b\r\n\r\n",
        ]
        .concat();
        assert_eq!(is_read(&request(&line)), host, "byte {byte:#x} of a host");
    }
}
