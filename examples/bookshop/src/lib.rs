//! The example: a bookshop of small services that know nothing of the mesh.
