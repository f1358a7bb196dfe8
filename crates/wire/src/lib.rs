//! HTTP messages as they stand on the wire: heads whose fields keep order and case, and the HTTP/1
//! codec.
#![forbid(unsafe_code)]
