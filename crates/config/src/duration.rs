//! Spans of time as users write them: Gateway API's format (GEP-2257: `1h30m`, `250ms`) and, being
//! a superset of it, Go's (`1.5s`, `100us`). What was written is kept for writing it back.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest span that is accepted: a hundred days.
const MAX: Duration = Duration::from_hours(100 * 24);

/// A span of time and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    text: String,
    value: Duration,
}

impl Span {
    /// The span.
    pub fn get(&self) -> Duration {
        self.value
    }
}

impl From<Duration> for Span {
    /// For defaults: written in milliseconds, or in seconds where it is whole ones.
    fn from(value: Duration) -> Self {
        let text = if value.subsec_nanos() == 0 {
            format!("{}s", value.as_secs())
        } else {
            format!("{}ms", value.as_millis())
        };
        Self { text, value }
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = read(text).ok_or_else(|| {
            format!(
                "\"{}\" is not a duration; write it like 10s, 250ms or 1h30m",
                text.chars().take(40).collect::<String>()
            )
        })?;
        if value > MAX {
            return Err(format!("\"{text}\" is longer than 100 days"));
        }
        Ok(Self {
            text: text.to_owned(),
            value,
        })
    }
}

/// The span that a text says.
pub(crate) fn read(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 40 {
        return None;
    }
    let mut rest = text;
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let whole: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.find(|c: char| !c.is_ascii_digit())?;
            fraction = &after[..digits.min(9)];
            if digits == 0 {
                return None;
            }
            rest = &after[digits..];
        }
        let (unit, length): (u128, usize) = [
            ("ms", 1_000_000),
            ("us", 1_000),
            ("µs", 1_000),
            ("ns", 1),
            ("s", 1_000_000_000),
            ("m", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ]
        .into_iter()
        .find_map(|(word, unit)| rest.starts_with(word).then_some((unit, word.len())))?;
        rest = &rest[length..];
        nanos += u128::from(whole) * unit;
        if !fraction.is_empty() {
            let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
            nanos += fraction.parse::<u128>().ok()? * unit / scale;
        }
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;
        impl serde::de::Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as 10s, 250ms or 1h30m")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(SpanVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        for (text, millis) in [
            ("10s", 10_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1h30m10s5ms", 5_410_005),
            ("1.5s", 1_500),
            ("0s", 0),
            ("0", 0),
            ("2000us", 2),
            ("0.25m", 15_000),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.get(), Duration::from_millis(millis), "{text}");
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1 s",
            "1d",
            "1.s",
            ".5s",
            "10S",
            "999999h",
            "1e3s",
            "99999999999999999999999s",
            "99999999999999999h",
            "+1s",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
