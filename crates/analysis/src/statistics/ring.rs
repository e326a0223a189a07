//! Live things by serial number.

use std::collections::{BTreeMap, VecDeque};

/// The largest step between two serial numbers that the ring fills with empty places. Drivers count by one; only a damaged
/// record jumps.
const LARGEST_STEP: u64 = 1 << 16;

/// Below this length the ring is never thinned out.
const SHORT: usize = 1024;

/// Things by serial number, where serial numbers are given in increasing order and most things live briefly: a ring of
/// places for the recent ones, and a map for the few that outlive it. Memory is proportional to the number of live
/// things.
#[derive(Clone, Debug)]
pub(super) struct Ring<T> {
    /// Serial number of the first place.
    base: u64,
    places: VecDeque<Option<T>>,
    /// Occupied places.
    occupied: usize,
    /// Things that are older than the first place.
    old: BTreeMap<u64, T>,
}

impl<T> Ring<T> {
    pub(super) const fn new() -> Self {
        Self { base: 0, places: VecDeque::new(), occupied: 0, old: BTreeMap::new() }
    }

    /// Stores a thing. One that is there already is replaced.
    pub(super) fn insert(&mut self, serial: u64, thing: T) {
        if self.places.is_empty() {
            self.base = serial;
        }
        let next = self.base + self.places.len() as u64;
        if serial < self.base || serial > next + LARGEST_STEP {
            self.old.insert(serial, thing);
            return;
        }
        for _ in next..=serial {
            self.places.push_back(None);
        }
        let place = &mut self.places[(serial - self.base) as usize];
        self.occupied += usize::from(place.is_none());
        *place = Some(thing);
        while self.places.len() > SHORT.max(8 * self.occupied) {
            self.retire_first();
        }
    }

    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut T> {
        match serial.checked_sub(self.base).and_then(|i| self.places.get_mut(i as usize)) {
            Some(Some(thing)) => Some(thing),
            _ if self.old.is_empty() => None,
            _ => self.old.get_mut(&serial),
        }
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<T> {
        let place = serial.checked_sub(self.base).and_then(|i| self.places.get_mut(i as usize));
        let Some(thing) = place.and_then(Option::take) else {
            return self.old.remove(&serial);
        };
        self.occupied -= 1;
        self.drop_empty_front();
        Some(thing)
    }

    /// Removes the thing with the smallest serial number.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let in_ring = self.places.iter().position(Option::is_some).map(|i| self.base + i as u64);
        let in_map = self.old.first_key_value().map(|(&serial, _)| serial);
        let serial = in_ring.into_iter().chain(in_map).min()?;
        self.remove(serial).map(|thing| (serial, thing))
    }

    fn retire_first(&mut self) {
        if let Some(Some(thing)) = self.places.pop_front() {
            self.occupied -= 1;
            self.old.insert(self.base, thing);
        }
        self.base += 1;
        self.drop_empty_front();
    }

    fn drop_empty_front(&mut self) {
        while matches!(self.places.front(), Some(None)) {
            self.places.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_alive_and_nothing_else() {
        let mut ring = Ring::new();
        for serial in 5..10_u64 {
            ring.insert(serial, serial * 10);
        }
        assert_eq!(ring.remove(6), Some(60));
        assert_eq!(ring.remove(6), None);
        assert_eq!(ring.get_mut(4), None);
        assert_eq!(ring.get_mut(5), Some(&mut 50));
        assert_eq!(ring.remove(5), Some(50));
        assert_eq!(ring.base, 7, "empty places at the front are dropped");
        assert_eq!(ring.pop(), Some((7, 70)));
    }

    #[test]
    fn a_long_lived_thing_does_not_hold_the_places_of_all_later_ones() {
        let mut ring = Ring::new();
        ring.insert(0, 0);
        for serial in 1..100_000_u64 {
            ring.insert(serial, serial);
            ring.remove(serial);
            assert!(ring.places.len() <= SHORT);
        }
        assert_eq!(ring.get_mut(0), Some(&mut 0));
        assert_eq!(ring.remove(0), Some(0));
        assert_eq!(ring.pop(), None);
    }

    #[test]
    fn a_jump_in_serial_numbers_does_not_fill_memory() {
        let mut ring = Ring::new();
        ring.insert(0, 'a');
        ring.insert(u64::MAX - 1, 'b');
        assert_eq!(ring.places.len(), 1);
        assert_eq!(ring.get_mut(u64::MAX - 1), Some(&mut 'b'));
        assert_eq!(ring.pop(), Some((0, 'a')));
        assert_eq!(ring.pop(), Some((u64::MAX - 1, 'b')));
    }
}
