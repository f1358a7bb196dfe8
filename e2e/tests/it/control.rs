//! The control plane and its limits.
