//! `creationTimestamp`: RFC 3339, as seconds since 1970.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) fn parse(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp()).ok()
}

pub(crate) fn format(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()?
        .format(&Rfc3339)
        .ok()
}
