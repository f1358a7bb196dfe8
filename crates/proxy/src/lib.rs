//! The data plane: listeners, HTTP and TCP paths, pools, retries, tunnels, admin endpoint.
