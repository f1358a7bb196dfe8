//! A real mesh: a control plane and workloads, each in processes of its own.
