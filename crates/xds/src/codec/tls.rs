//! What of TLS is spoken with the outside.

use model::tls::{Code, GROUPS, SUITES, TlsOptions, TlsVersion};

use super::field::{Invalid, Result, each};
use crate::proto::v1;

pub(super) fn to_message(options: &TlsOptions) -> Option<v1::TlsOptions> {
    let numbers = |codes: &[&'static Code]| codes.iter().map(|c| c.number.into()).collect();
    (*options != TlsOptions::default()).then(|| v1::TlsOptions {
        only_tls_13: options.min_version == TlsVersion::V1_3,
        groups: numbers(&options.groups),
        suites: numbers(&options.suites),
    })
}

pub(super) fn from_message(message: Option<v1::TlsOptions>) -> Result<TlsOptions> {
    let Some(message) = message else {
        return Ok(TlsOptions::default());
    };
    Ok(TlsOptions {
        min_version: if message.only_tls_13 {
            TlsVersion::V1_3
        } else {
            TlsVersion::V1_2
        },
        groups: codes("groups", message.groups, &GROUPS)?,
        suites: codes("suites", message.suites, &SUITES)?,
    })
}

fn codes(field: &str, numbers: Vec<u32>, all: &'static [Code]) -> Result<Vec<&'static Code>> {
    each(field, numbers, |number| {
        let known = u16::try_from(number).ok();
        known
            .and_then(|number| Code::numbered(all, number))
            .ok_or_else(|| Invalid::new("", format!("{number:#x} is not known to this version")))
    })
}
