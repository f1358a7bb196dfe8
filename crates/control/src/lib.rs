//! The control plane: sources, store, registry, distribution, certificates, status and the HTTP API.
