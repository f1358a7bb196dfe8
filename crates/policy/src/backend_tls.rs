//! Which of several `BackendTLSPolicy`s holds for a port of a service.

use model::backend_tls::BackendTls;

/// One for the port before one for the whole service, then the oldest, then the first by name
/// (GEP-713).
pub fn choose<'p>(
    policies: impl Iterator<Item = &'p BackendTls>,
    port: u16,
) -> Option<&'p BackendTls> {
    policies
        .filter(|p| p.port.is_none_or(|own| own == port))
        .min_by_key(|p| (p.port.is_none(), p.created, p.name.clone()))
}
