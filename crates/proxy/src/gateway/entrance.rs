//! Where HTTP requests come in: a port, and with TLS the listener that the server name meant.

use std::sync::Arc;

use model::Reason;
use model::gateway::GatewayName;
use policy::host::normal;
use wire::RequestHead;

use super::listeners::{Listener, Table};
use crate::error::Failure;
use crate::worker::Worker;

/// The way in of one connection's requests.
pub(crate) struct Entrance {
    pub(crate) port: u16,
    /// The listener whose certificate the client was shown. It may have changed since.
    shown: Option<(GatewayName, String)>,
    /// Whether HTTP/3 was served beside it when the connection came.
    announces: bool,
}

impl Entrance {
    /// A way in without TLS.
    pub(crate) fn plain(port: u16) -> Self {
        Self {
            port,
            shown: None,
            announces: false,
        }
    }

    /// A way in behind a listener's certificate.
    pub(crate) fn behind(listener: &Listener) -> Self {
        let config = &listener.config;
        Self {
            port: config.port,
            shown: Some((config.gateway.clone(), config.name.clone())),
            announces: listener.alt_svc.is_some(),
        }
    }

    pub(crate) fn is_behind_tls(&self) -> bool {
        self.shown.is_some()
    }

    /// What the client is told of HTTP/3 (`Alt-Svc`, RFC 7838), as long as it is served.
    pub(crate) fn alternative(&self, worker: &Worker, head: &RequestHead) -> Option<Arc<str>> {
        if !self.announces {
            return None;
        }
        let snapshot = worker.snapshot();
        let port = snapshot.listeners.port(self.port).filter(|p| p.http3())?;
        port.listener(Some(&normal(head.host())))?.alt_svc.clone()
    }

    /// The routes for a request, as they are now.
    pub(crate) fn table(&self, worker: &Worker, head: &RequestHead) -> Result<Arc<Table>, Failure> {
        let snapshot = worker.snapshot();
        let host = normal(head.host());
        let port = snapshot.listeners.port(self.port);
        let listener = port.and_then(|port| port.listener(Some(&host)));
        let Some(listener) = listener else {
            let details = format!("no listener on port {} is for host \"{host}\"", self.port);
            return Err(Failure::new(Reason::NoRoute, details));
        };
        if let Some((gateway, name)) = &self.shown
            && !listener.is(gateway, name)
        {
            // RFC 9110 7.4: a connection whose certificate is another host's is not for it.
            let details = format!("host \"{host}\" is not served on this connection");
            return Err(Failure::misdirected(details));
        }
        listener.table(&host).cloned().ok_or_else(|| {
            let details = format!("no route of {} is for host \"{host}\"", listener.name);
            Failure::new(Reason::NoRoute, details)
        })
    }
}
