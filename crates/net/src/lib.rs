//! Sockets, original destinations, protocol detection, byte copy and DNS wire handling.
