//! Metrics, access log, trace context and span export.
