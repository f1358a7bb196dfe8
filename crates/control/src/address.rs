//! Address pools: virtual addresses of services, and addresses of workloads in transparent mode.
//!
//! A pool has an IPv4 and an IPv6 range; an owner gets the same place in both. The place follows
//! from the owner's name where it is free (else the next free one), so that a service that is
//! deleted and made again, even after the loss of the store, most often has its old addresses:
//! clients cache them. Pure; the store keeps what was allotted.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which pool an address is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pool {
    /// Virtual addresses of services: 240.240.0.0/16 and fd7e:7475:6c6c:1::/112.
    Services,
    /// Workloads in transparent mode: 10.96.0.0/16 and fd7e:7475:6c6c:2::/64, or one of the 31
    /// ranges that follow each (see [`set_apart`]). The first address is the gateway's.
    Workloads,
}

/// How many control planes can be told apart on one host.
const BLOCKS: u64 = 32;
static BLOCK: OnceLock<u8> = OnceLock::new();

/// Sets the workloads' addresses of this process apart from those that other control planes on the
/// same host give out: which of 32 ranges they are from follows from `identity`, which must be the
/// same at every start. Without this call, and for the first range: those of [`Pool::Workloads`].
pub fn set_apart(identity: &str) {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(identity);
    let _ = BLOCK.set((hash % BLOCKS) as u8);
}

fn block() -> u8 {
    BLOCK.get().copied().unwrap_or(0)
}

/// Places of a pool: both ranges have room for 16 bits; the lowest 256 are kept for fixed uses.
const FIRST: u32 = 256;
const END: u32 = 65_535;

impl Pool {
    /// Both pools.
    pub const ALL: [Self; 2] = [Self::Services, Self::Workloads];

    /// The name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Workloads => "workloads",
        }
    }

    /// The range of IPv4 addresses.
    pub fn v4(self) -> Ipv4Net {
        let base = match self {
            Self::Services => Ipv4Addr::new(240, 240, 0, 0),
            Self::Workloads => Ipv4Addr::new(10, 96 + block(), 0, 0),
        };
        Ipv4Net::new_assert(base, 16)
    }

    /// The range of IPv6 addresses.
    pub fn v6(self) -> Ipv6Net {
        match self {
            Self::Services => {
                Ipv6Net::new_assert(Ipv6Addr::new(0xfd7e, 0x7475, 0x6c6c, 1, 0, 0, 0, 0), 112)
            }
            Self::Workloads => {
                let subnet = 2 + u16::from(block());
                Ipv6Net::new_assert(
                    Ipv6Addr::new(0xfd7e, 0x7475, 0x6c6c, subnet, 0, 0, 0, 0),
                    64,
                )
            }
        }
    }

    /// Both ranges.
    pub fn networks(self) -> [IpNet; 2] {
        [IpNet::V4(self.v4()), IpNet::V6(self.v6())]
    }

    /// The addresses at a place, IPv4 first.
    pub fn at(self, place: u32) -> (Ipv4Addr, Ipv6Addr) {
        let v4 = u32::from(self.v4().network()).wrapping_add(place);
        let v6 = u128::from(self.v6().network()).wrapping_add(u128::from(place));
        (Ipv4Addr::from(v4), Ipv6Addr::from(v6))
    }

    /// The place of an address; `None` outside the pool.
    pub fn place_of(self, address: IpAddr) -> Option<u32> {
        let place = match address {
            IpAddr::V4(a) if self.v4().contains(&a) => {
                u128::from(u32::from(a).wrapping_sub(u32::from(self.v4().network())))
            }
            IpAddr::V6(a) if self.v6().contains(&a) => {
                u128::from(a).wrapping_sub(u128::from(self.v6().network()))
            }
            _ => return None,
        };
        u32::try_from(place).ok().filter(|p| *p <= END)
    }
}

/// No place is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "all {} addresses of the pool {} are taken; delete {} that are no longer needed",
    END - FIRST, self.0.v4(), self.0.as_str()
)]
pub struct Exhausted(pub Pool);

/// What is allotted of one pool.
#[derive(Debug, Default)]
pub struct Allotment {
    places: HashMap<String, u32>,
    taken: HashSet<u32>,
}

impl Allotment {
    /// Takes in what the store has kept.
    pub fn restore(&mut self, owner: String, place: u32) {
        self.taken.insert(place);
        self.places.insert(owner, place);
    }

    /// The owner's place, if it has one.
    pub fn place(&self, owner: &str) -> Option<u32> {
        self.places.get(owner).copied()
    }

    /// The owner's place, found when it has none yet.
    pub fn allot(&mut self, pool: Pool, owner: &str) -> Result<u32, Exhausted> {
        if let Some(place) = self.place(owner) {
            return Ok(place);
        }
        let span = END - FIRST;
        // Fixed keys: the same name leads to the same place in every process.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(owner);
        let start = (hash % u64::from(span)) as u32;
        let place = (0..span)
            .map(|step| FIRST + (start + step) % span)
            .find(|place| !self.taken.contains(place))
            .ok_or(Exhausted(pool))?;
        self.restore(owner.to_owned(), place);
        Ok(place)
    }

    /// Takes a place that was asked for; `false` when another owner has it.
    pub fn reserve(&mut self, owner: &str, place: u32) -> bool {
        if self.place(owner) == Some(place) {
            return true;
        }
        if self.taken.contains(&place) {
            return false;
        }
        self.release(owner);
        self.restore(owner.to_owned(), place);
        true
    }

    /// Gives a place back.
    pub fn release(&mut self, owner: &str) {
        if let Some(place) = self.places.remove(owner) {
            self.taken.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gets_its_old_place_back() {
        let mut first = Allotment::default();
        let place = first
            .allot(Pool::Services, "bookshop/reviews")
            .expect("free");
        let mut second = Allotment::default();
        second
            .allot(Pool::Services, "bookshop/ratings")
            .expect("free");
        assert_eq!(second.allot(Pool::Services, "bookshop/reviews"), Ok(place));
        second.release("bookshop/reviews");
        assert_eq!(second.allot(Pool::Services, "bookshop/reviews"), Ok(place));
    }

    #[test]
    fn no_two_owners_share_a_place_and_the_end_is_told() {
        let mut all = Allotment::default();
        for n in 0..(END - FIRST) {
            all.allot(Pool::Workloads, &n.to_string()).expect("free");
        }
        assert_eq!(all.taken.len(), (END - FIRST) as usize);
        assert_eq!(
            all.allot(Pool::Workloads, "one more"),
            Err(Exhausted(Pool::Workloads))
        );
    }

    #[test]
    fn places_and_addresses_are_two_views_of_one() {
        for pool in Pool::ALL {
            let (v4, v6) = pool.at(0x1234);
            assert_eq!(pool.place_of(IpAddr::V4(v4)), Some(0x1234));
            assert_eq!(pool.place_of(IpAddr::V6(v6)), Some(0x1234));
            assert!(
                pool.networks()
                    .iter()
                    .all(|n| n.contains(&IpAddr::V4(v4)) || n.contains(&IpAddr::V6(v6)))
            );
        }
        assert_eq!(
            Pool::Services.place_of("10.0.0.1".parse().expect("valid")),
            None
        );
    }

    #[test]
    fn a_place_that_is_taken_cannot_be_reserved() {
        let mut all = Allotment::default();
        assert!(all.reserve("a", 300));
        assert!(all.reserve("a", 300));
        assert!(!all.reserve("b", 300));
        assert!(all.reserve("a", 301));
        assert!(all.reserve("b", 300));
    }
}
