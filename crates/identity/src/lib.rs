//! Certificate authority, SPIFFE X.509-SVIDs, trust bundles, join tokens and the TLS configurations made from them.
