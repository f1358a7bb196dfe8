//! The client of one stream after the other.
