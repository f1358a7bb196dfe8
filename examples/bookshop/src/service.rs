//! The services, one module each.

pub(crate) mod catalogue;
pub(crate) mod load;
pub(crate) mod orders;
pub(crate) mod payments;
pub(crate) mod ratings;
pub(crate) mod reviews;
pub(crate) mod stock;
pub(crate) mod storefront;
