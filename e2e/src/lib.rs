//! End-to-end tests: they start the real tulle binary.
