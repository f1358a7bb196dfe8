//! The demonstration: a whole mesh on one host, and the check that it does what it claims.
