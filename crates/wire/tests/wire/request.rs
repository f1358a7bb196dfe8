//! Heads of requests: what is read and what is refused, row by row.

mod bytes;
mod connection;
mod fields;
mod host;
mod length;
mod line;
mod target;
