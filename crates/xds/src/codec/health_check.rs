//! Active health checks.

use model::health_check::{HealthCheck, HttpProbe, Probe};

use super::field::{Invalid, Result, duration, duration_to_message, required};
use crate::proto::v1::{self, health_check as message};

pub(super) fn to_message(check: &HealthCheck) -> v1::HealthCheck {
    v1::HealthCheck {
        interval: Some(duration_to_message(check.interval)),
        timeout: Some(duration_to_message(check.timeout)),
        healthy_threshold: check.healthy_threshold,
        unhealthy_threshold: check.unhealthy_threshold,
        probe: Some(match &check.probe {
            Probe::Http(http) => message::Probe::Http(message::Http {
                path: http.path.clone(),
                host: http.host.clone().unwrap_or_default(),
                statuses: http
                    .statuses
                    .iter()
                    .map(|range| message::Statuses {
                        first: u32::from(*range.start()),
                        last: u32::from(*range.end()),
                    })
                    .collect(),
            }),
            Probe::Grpc(service) => message::Probe::Grpc(message::Grpc {
                service: service.clone(),
            }),
            Probe::Tcp => message::Probe::Tcp(message::Tcp {}),
        }),
    }
}

pub(super) fn from_message(check: v1::HealthCheck) -> Result<HealthCheck> {
    let probe = match required("probe", check.probe)? {
        message::Probe::Http(http) => {
            let statuses = http.statuses.into_iter().map(|range| {
                let status = |value| {
                    let status = u16::try_from(value).ok();
                    let status = status.filter(|status| (100..600).contains(status));
                    status.ok_or_else(|| {
                        Invalid::new("http.statuses", format!("has {value}, no status"))
                    })
                };
                Ok(status(range.first)?..=status(range.last)?)
            });
            Probe::Http(HttpProbe {
                path: http.path,
                host: Some(http.host).filter(|host| !host.is_empty()),
                statuses: statuses.collect::<Result<_>>()?,
            })
        }
        message::Probe::Grpc(grpc) => Probe::Grpc(grpc.service),
        message::Probe::Tcp(message::Tcp {}) => Probe::Tcp,
    };
    let span = |field, value| duration(field, required(field, value)?);
    Ok(HealthCheck {
        probe,
        interval: span("interval", check.interval)?,
        timeout: span("timeout", check.timeout)?,
        healthy_threshold: check.healthy_threshold,
        unhealthy_threshold: check.unhealthy_threshold,
    })
}
