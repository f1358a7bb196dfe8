//! The server of one stream.
