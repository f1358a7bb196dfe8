//! Delta xDS: protocol state machines, native resources to and from the wire, client and server of the control plane's gRPC services.
