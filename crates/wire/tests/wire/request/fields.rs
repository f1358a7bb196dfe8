//! Names, values and the lines they stand on.

use crate::show::{request, table, table_of};

#[test]
fn fields_of_rfc_9112_section_5() {
    let rows = [
        (
            "order and case",
            "B: 1\r\na: 2\r\nB: 3\r\n",
            "GET <h> / None {Host: h, B: 1, a: 2, B: 3}",
        ),
        (
            "blanks at both ends",
            "A: \t x y \t \r\n",
            "GET <h> / None {Host: h, A: x y}",
        ),
        ("no blank", "A:x\r\n", "GET <h> / None {Host: h, A: x}"),
        ("empty", "A:\r\n", "GET <h> / None {Host: h, A: }"),
        ("only blanks", "A:  \t\r\n", "GET <h> / None {Host: h, A: }"),
        (
            "colons in the value",
            "A: b:c\r\n",
            "GET <h> / None {Host: h, A: b:c}",
        ),
        (
            "bytes beyond ASCII",
            "A: \u{e9}\r\n",
            "GET <h> / None {Host: h, A: \\xc3\\xa9}",
        ),
        (
            "tab within",
            "A: b\tc\r\n",
            "GET <h> / None {Host: h, A: b\\tc}",
        ),
        (
            "every mark of a token",
            "!#$%&'*+-.^_`|~: x\r\n",
            "GET <h> / None {Host: h, !#$%&\\'*+-.^_`|~: x}",
        ),
        ("space before the colon (5.1)", "A : x\r\n", "400 BadField"),
        ("tab before the colon (5.1)", "A\t: x\r\n", "400 BadField"),
        (
            "Content-Length with a space (5.1)",
            "Content-Length : 5\r\n",
            "400 BadField",
        ),
        (
            "Transfer-Encoding with a space (5.1)",
            "Transfer-Encoding : chunked\r\n",
            "400 BadField",
        ),
        ("empty name", ": x\r\n", "400 BadField"),
        ("no colon", "A\r\n", "400 BadField"),
        ("space in the name", "A b: x\r\n", "400 BadField"),
        ("NUL in the name", "A\0: x\r\n", "400 BadField"),
        ("parenthesis in the name", "A(: x\r\n", "400 BadField"),
        (
            "quotes around the name",
            "\"Content-Length\": 5\r\n",
            "400 BadField",
        ),
        (
            "a byte beyond ASCII in the name",
            "\u{e9}: x\r\n",
            "400 BadField",
        ),
        (
            "vertical tab in the name",
            "Content-Length\x0b: 5\r\n",
            "400 BadField",
        ),
        ("folded with a space (5.2)", "A: x\r\n y\r\n", "400 ObsFold"),
        ("folded with a tab (5.2)", "A: x\r\n\ty\r\n", "400 ObsFold"),
        (
            "folded Transfer-Encoding",
            "Transfer-Encoding:\r\n chunked\r\n",
            "400 ObsFold",
        ),
        ("NUL in the value", "A: x\0y\r\n", "400 BadField"),
        ("escape in the value", "A: \x1b[31m\r\n", "400 BadField"),
        ("DEL in the value", "A: \x7f\r\n", "400 BadField"),
        ("vertical tab in the value", "A: \x0bx\r\n", "400 BadField"),
        (
            "bare LF ends a field (2.2)",
            "A: x\nB: y\r\n",
            "400 BareLineFeed",
        ),
        (
            "bare CR in a value (2.2)",
            "A: x\ry\r\n",
            "400 BareCarriageReturn",
        ),
        ("CR CR LF", "A: x\r\r\n", "400 BareCarriageReturn"),
        ("LF CR", "A: x\n\r\n", "400 BareLineFeed"),
        ("LF in the name", "A\nB: x\r\n", "400 BareLineFeed"),
        ("CR in the name", "A\rB: x\r\n", "400 BareCarriageReturn"),
    ];
    table_of(
        &rows,
        |field| format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n"),
        request,
    );
    table(
        &[
            (
                "blank before the first field (2.2)",
                "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
                "400 ObsFold",
            ),
            (
                "a blank line of blanks",
                "GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
                "400 ObsFold",
            ),
            (
                "the head ends with bare LFs",
                "GET / HTTP/1.1\r\nHost: a\n\n",
                "400 BareLineFeed",
            ),
            (
                "the head ends with LF, CR LF",
                "GET / HTTP/1.1\r\nHost: a\n\r\n",
                "400 BareLineFeed",
            ),
            (
                "only LFs",
                "GET / HTTP/1.1\nHost: a\n\n",
                "400 BareLineFeed",
            ),
            (
                "only CRs",
                "GET / HTTP/1.1\rHost: a\r\r",
                "400 BareCarriageReturn",
            ),
            (
                "a second request behind a bare LF",
                "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\nGET /2 HTTP/1.1\r\nHost: b\r\n\r\n",
                "400 BareLineFeed",
            ),
        ],
        request,
    );
}
