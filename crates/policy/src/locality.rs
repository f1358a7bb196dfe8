//! How endpoints are grouped by where they are, as seen from one proxy.
//!
//! Near first: those of the proxy's own zone, of its region, all others; as Istio groups them. A place
//! of which nothing is known is near to none.

use std::collections::BTreeMap;

use model::balancing::LocalityWeight;
use model::workload::Locality;

/// Groups of [`distance`].
pub const DISTANCES: usize = 3;

/// How far away a place is: 0 the same zone, 1 the same region, 2 elsewhere.
pub fn distance(own: &Locality, other: &Locality) -> usize {
    let same = |a: &str, b: &str| !a.is_empty() && a == b;
    // A zone's name without its region says enough: clouds put the region into it.
    let regions = same(&own.region, &other.region);
    let unknown = own.region.is_empty() || other.region.is_empty();
    if same(&own.zone, &other.zone) && (regions || unknown) {
        0
    } else if regions {
        1
    } else {
        2
    }
}

/// Whether it is known where a proxy is.
pub fn is_known(own: &Locality) -> bool {
    *own != Locality::default()
}

/// The weight of each locality that has endpoints; by how many these are where nobody said otherwise.
/// A locality without a weight among those that were given gets nothing.
pub fn weights<'a>(
    given: &[LocalityWeight],
    endpoints: impl IntoIterator<Item = &'a Locality>,
) -> BTreeMap<(&'a str, &'a str), u32> {
    let mut counts = BTreeMap::new();
    for place in endpoints {
        let key = (place.region.as_str(), place.zone.as_str());
        let count = counts.entry(key).or_insert(0_u32);
        *count = count.saturating_add(1);
    }
    if given.is_empty() {
        return counts;
    }
    let regional = |region: &str| {
        given
            .iter()
            .find(|w| w.region == region && w.zone.is_empty())
    };
    let whole = |region: &str| -> u32 {
        let of = |w: &&LocalityWeight| w.region == region && !w.zone.is_empty();
        let named = |zone: &str| given.iter().filter(of).any(|w| w.zone == zone);
        let rest = counts
            .iter()
            .filter(|((r, z), _)| *r == region && !named(z));
        rest.map(|(_, count)| *count).sum()
    };
    let weight = |(region, zone): (&str, &str), count: u32| {
        let own = given
            .iter()
            .find(|w| w.region == region && w.zone == zone && !zone.is_empty());
        if let Some(own) = own {
            return own.weight.saturating_mul(SHARES);
        }
        // A region's weight is shared by those of its zones that have none of their own.
        regional(region).map_or(0, |w| {
            let part = u64::from(w.weight) * u64::from(SHARES) * u64::from(count)
                / u64::from(whole(region).max(1));
            u32::try_from(part).unwrap_or(u32::MAX)
        })
    };
    let found = counts.iter();
    found
        .map(|(place, count)| (*place, weight(*place, *count)))
        .collect()
}

/// Parts of a weight, so that a region's can be divided.
const SHARES: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Locality {
        let (region, zone) = text.split_once('/').unwrap_or((text, ""));
        Locality {
            region: region.to_owned(),
            zone: zone.to_owned(),
        }
    }

    #[test]
    fn a_zone_is_nearer_than_a_region_and_the_unknown_is_far() {
        for (own, other, expected) in [
            ("eu/1", "eu/1", 0),
            ("eu/1", "eu/2", 1),
            ("eu/1", "us/1", 2),
            ("eu", "eu/1", 1),
            ("eu", "eu", 1),
            ("", "", 2),
            ("eu/1", "", 2),
            ("", "eu/1", 2),
            // A slice names the zone alone.
            ("eu/1", "/1", 0),
            ("/1", "/1", 0),
            ("/1", "/2", 2),
        ] {
            assert_eq!(
                distance(&place(own), &place(other)),
                expected,
                "{own} {other}"
            );
        }
    }

    #[test]
    fn localities_weigh_what_was_given_or_as_many_as_they_have() {
        let endpoints = ["eu/1", "eu/1", "eu/2", "us/1"].map(place);
        let counts = |given: &[(&str, u32)]| -> Vec<u32> {
            let given: Vec<_> = given
                .iter()
                .map(|(text, weight)| LocalityWeight {
                    region: place(text).region,
                    zone: place(text).zone,
                    weight: *weight,
                })
                .collect();
            weights(&given, &endpoints).into_values().collect()
        };
        assert_eq!(counts(&[]), [2, 1, 1]);
        assert_eq!(counts(&[("eu/1", 80), ("us/1", 20)]), [80_000, 0, 20_000]);
        assert_eq!(counts(&[("eu", 90), ("us", 10)]), [60_000, 30_000, 10_000]);
        assert_eq!(counts(&[("eu", 90), ("eu/1", 10)]), [10_000, 90_000, 0]);
    }
}
