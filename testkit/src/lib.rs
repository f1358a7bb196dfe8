//! Builders, scripted upstreams and worlds for tests; never shipped.
