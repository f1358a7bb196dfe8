//! Pure decisions over the model: which rule of which route, with which filters, to which backend.
