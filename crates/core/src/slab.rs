//! Storage for things that come and go, with reused indices.

use std::ops::{Index, IndexMut};

use crate::id::Id;

/// Items by id; ids of removed items are reused, most recently freed first.
#[derive(Clone, Debug)]
pub struct Slab<I, T> {
    items: Vec<Option<T>>,
    /// How often what is at an id may have changed; beside the items, so that asking does not fetch them.
    changes: Vec<u64>,
    free: Vec<I>,
}

impl<I: Id, T> Slab<I, T> {
    /// Empty.
    pub const fn new() -> Self {
        Self { items: Vec::new(), changes: Vec::new(), free: Vec::new() }
    }

    /// Stores an item.
    pub fn insert(&mut self, item: T) -> I {
        if let Some(id) = self.free.pop() {
            self.items[id.index()] = Some(item);
            self.changes[id.index()] += 1;
            id
        } else {
            self.items.push(Some(item));
            self.changes.push(0);
            I::new(self.items.len() - 1)
        }
    }

    /// Removes an item.
    ///
    /// # Panics
    /// If there is none: ids are removed once.
    pub fn remove(&mut self, id: I) -> T {
        let item = self.items[id.index()].take().expect("an item is removed once");
        self.free.push(id);
        item
    }

    /// The item, if it is there.
    pub fn get(&self, id: I) -> Option<&T> {
        self.items.get(id.index()).and_then(Option::as_ref)
    }

    /// How often what is at a live item's id may have changed since the slab was made: as long as the number is the same, so are the
    /// item and all in it.
    pub fn changes(&self, id: I) -> u64 {
        self.changes[id.index()]
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All items with their ids, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.items.iter().enumerate().filter_map(|(i, item)| item.as_ref().map(|item| (I::new(i), item)))
    }
}

impl<I: Id, T> Default for Slab<I, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Id, T> Index<I> for Slab<I, T> {
    type Output = T;
    fn index(&self, id: I) -> &T {
        self.items[id.index()].as_ref().expect("the id belongs to a live item")
    }
}

impl<I: Id, T> IndexMut<I> for Slab<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        self.changes[id.index()] += 1;
        self.items[id.index()].as_mut().expect("the id belongs to a live item")
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;
    use crate::id::StageId;

    #[test]
    fn whatever_may_have_changed_an_item_is_counted() {
        let mut slab: Slab<StageId, u32> = Slab::new();
        let (a, b) = (slab.insert(1), slab.insert(2));
        let seen = (slab.changes(a), slab.changes(b));
        slab[a] += 1;
        assert_ne!(slab.changes(a), seen.0);
        assert_eq!(slab.changes(b), seen.1);
        let seen = slab.changes(a);
        assert_eq!((slab[a], slab.get(a)), (2, Some(&2)));
        assert_eq!(slab.changes(a), seen, "reading changes nothing");
        slab.remove(a);
        assert_eq!(slab.insert(2), a);
        assert_ne!(slab.changes(a), seen, "another item, though it is equal");
    }
}
