//! Numbers of bytes as Kubernetes' quantities: `64Ki`, `10M`, or a plain number. What was written is
//! kept for writing it back.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity {
    text: String,
    value: u64,
}

impl Quantity {
    /// The number of bytes.
    pub fn get(&self) -> u64 {
        self.value
    }
}

impl std::str::FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = read(text).ok_or_else(|| {
            format!(
                "\"{}\" is not a number of bytes; write it like 16Ki, 10Mi or 65536",
                text.chars().take(40).collect::<String>()
            )
        })?;
        Ok(Self {
            text: text.to_owned(),
            value,
        })
    }
}

fn read(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match &text[digits..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct QuantityVisitor;
        impl serde::de::Visitor<'_> for QuantityVisitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, such as 16Ki or 65536")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity {
                    text: value.to_string(),
                    value,
                })
            }
        }
        deserializer.deserialize_any(QuantityVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_quantities_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("16Ki", 16_384),
            ("1M", 1_000_000),
            ("2Gi", 2 << 30),
        ] {
            let quantity: Quantity = text.parse().expect(text);
            assert_eq!(quantity.get(), bytes, "{text}");
        }
        for text in [
            "",
            "Ki",
            "1.5Ki",
            "-1",
            "16 Ki",
            "16kb",
            "99999999999999999999",
            "99999999999999Gi",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
