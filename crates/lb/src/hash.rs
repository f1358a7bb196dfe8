//! XXH64 (xxHash, Yann Collet), the hash that Envoy tells requests and endpoints apart with.
//!
//! Not for secrets: whoever can choose what is hashed can make collisions, which here means to choose
//! the endpoint that serves him.

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// The hash of some bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    hash_with(bytes, 0)
}

/// Another hash of them for each seed.
pub fn hash_with(bytes: &[u8], seed: u64) -> u64 {
    let [p1, p2, p3, p4, p5] = PRIMES;
    let mut stripes = bytes.chunks_exact(32);
    let mut value = if bytes.len() < 32 {
        seed.wrapping_add(p5)
    } else {
        let mut lanes = [
            seed.wrapping_add(p1).wrapping_add(p2),
            seed.wrapping_add(p2),
            seed,
            seed.wrapping_sub(p1),
        ];
        for stripe in &mut stripes {
            for (lane, word) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word64(word));
            }
        }
        let [a, b, c, d] = lanes;
        let sum = a
            .rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18));
        lanes.iter().fold(sum, |value, lane| {
            (value ^ round(0, *lane)).wrapping_mul(p1).wrapping_add(p4)
        })
    };
    value = value.wrapping_add(bytes.len() as u64);
    let mut words = stripes.remainder().chunks_exact(8);
    for word in &mut words {
        value ^= round(0, word64(word));
        value = value.rotate_left(27).wrapping_mul(p1).wrapping_add(p4);
    }
    let mut rest = words.remainder();
    if let Some((half, tail)) = rest.split_first_chunk::<4>() {
        value ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(p1);
        value = value.rotate_left(23).wrapping_mul(p2).wrapping_add(p3);
        rest = tail;
    }
    for byte in rest {
        value ^= u64::from(*byte).wrapping_mul(p5);
        value = value.rotate_left(11).wrapping_mul(p1);
    }
    mix(value)
}

/// Spreads what is in any of the bits over all of them.
pub(crate) fn mix(mut value: u64) -> u64 {
    let [_, p2, p3, ..] = PRIMES;
    value = (value ^ (value >> 33)).wrapping_mul(p2);
    value = (value ^ (value >> 29)).wrapping_mul(p3);
    value ^ (value >> 32)
}

fn round(lane: u64, word: u64) -> u64 {
    let [p1, p2, ..] = PRIMES;
    lane.wrapping_add(word.wrapping_mul(p2))
        .rotate_left(31)
        .wrapping_mul(p1)
}

fn word64(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation (`xxhsum -H1`, and Python's `xxhash.xxh64`).
    #[test]
    fn it_is_xxh64() {
        for (text, seed, expected) in [
            ("", 0, 0xEF46_DB37_51D8_E999),
            ("a", 0, 0xD24E_C4F1_A98C_6E5B),
            ("abc", 0, 0x44BC_2CF5_AD77_0999),
            ("abc", 7, 0x9E75_5206_1566_76D7),
            (
                "Nobody inspects the spammish repetition",
                0,
                0xFBCE_A83C_8A37_8BF1,
            ),
            (&"x".repeat(100), 3, 0x8918_A2BD_BDD2_45D8),
        ] {
            assert_eq!(
                hash_with(text.as_bytes(), seed),
                expected,
                "{text:?} {seed}"
            );
        }
    }
}
