//! Until when a request's client waits, as the request itself says.
//!
//! gRPC says for how long (`grpc-timeout`: gRPC over HTTP/2, Requests); for all else there is
//! `x-request-deadline`, a moment (RFC 3339, or milliseconds since 1970), which an application hands
//! on to whom it asks as it hands on the context of a trace.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The field with the moment.
pub const REQUEST_DEADLINE: &str = "x-request-deadline";
/// The field with the time of a gRPC call.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Digits that `grpc-timeout` may have.
const DIGITS: usize = 8;
const LARGEST: u128 = 99_999_999;

/// How long a gRPC call may take; `None` for what is no such value.
pub fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The same as a value, in the finest unit that it fits in; never longer than it is.
pub fn to_grpc_timeout(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    let units: [(u128, char); 6] = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let fitting = units.iter().find(|(unit, _)| nanos / unit <= LARGEST);
    fitting.map_or_else(
        || format!("{LARGEST}H"),
        |(unit, letter)| format!("{}{letter}", nanos / unit),
    )
}

/// The moment that a value names; `None` for what names none.
pub fn moment(value: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let millis = Duration::from_millis(text.parse().ok()?);
        return SystemTime::UNIX_EPOCH.checked_add(millis);
    }
    OffsetDateTime::parse(text, &Rfc3339).ok().map(Into::into)
}

/// A moment as a value, in milliseconds; never later than it is.
pub fn to_moment(moment: SystemTime) -> String {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis().to_string()
}

/// How long from now a request's client will wait; nothing when that is over. Of a value that is
/// none nothing is taken: its field is the application's.
pub fn remaining(
    grpc_timeout_value: Option<&[u8]>,
    deadline: Option<&[u8]>,
    now: impl FnOnce() -> SystemTime,
) -> Option<Duration> {
    let timeout = grpc_timeout_value.and_then(grpc_timeout);
    let until = deadline.and_then(moment);
    let left = until.map(|until| until.duration_since(now()).unwrap_or_default());
    [timeout, left].into_iter().flatten().min()
}

/// How long a server asks to be left alone (RFC 9110 10.2.3).
pub fn retry_after(value: &[u8], now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let at: SystemTime = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_timeout_of_grpc_is_read_as_its_protocol_says() {
        for (value, wanted) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("100000000m", None),
            ("5", None),
            ("s", None),
            ("+5S", None),
            ("5s", None),
            ("", None),
        ] {
            assert_eq!(grpc_timeout(value.as_bytes()), wanted, "{value}");
        }
    }

    #[test]
    fn a_moment_is_a_time_or_milliseconds() {
        let wanted = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_547_200_250);
        for value in [
            "1764547200250",
            "2025-12-01T00:00:00.25Z",
            "2025-12-01T01:00:00.250+01:00",
        ] {
            assert_eq!(moment(value.as_bytes()), Some(wanted), "{value}");
        }
        assert_eq!(to_moment(wanted), "1764547200250");
        for value in ["", "soon", "12.5", "-1", "99999999999999999999999"] {
            assert_eq!(moment(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn the_earlier_of_both_counts_and_what_is_over_is_nothing() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let left = |grpc: Option<&str>, moment: Option<&str>| {
            remaining(grpc.map(str::as_bytes), moment.map(str::as_bytes), || now)
        };
        assert_eq!(left(None, None), None);
        assert_eq!(left(Some("5S"), None), Some(Duration::from_secs(5)));
        assert_eq!(
            left(Some("5S"), Some("1002000")),
            Some(Duration::from_secs(2))
        );
        assert_eq!(left(None, Some("1")), Some(Duration::ZERO));
        assert_eq!(left(Some("x"), Some("tomorrow")), None);
    }

    #[test]
    fn a_server_asks_for_seconds_or_until_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let after = |value: &str| retry_after(value.as_bytes(), || now);
        assert_eq!(after("120"), Some(Duration::from_mins(2)));
        let date = "Sun, 06 Nov 1994 08:49:47 GMT";
        assert_eq!(after(date), Some(Duration::from_secs(10)));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO));
        assert_eq!(after("a while"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_no_more(nanos in 0_u64..) {
            let timeout = Duration::from_nanos(nanos);
            let read = grpc_timeout(to_grpc_timeout(timeout).as_bytes()).expect("is one");
            prop_assert!(read <= timeout);
            // Of eight digits the last is the error.
            let error = timeout.saturating_sub(read);
            prop_assert!(error <= timeout / 1_000_000 + Duration::from_nanos(1));
        }

        #[test]
        fn no_value_is_too_strange(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (grpc_timeout(&value), moment(&value), retry_after(&value, SystemTime::now));
        }
    }
}
