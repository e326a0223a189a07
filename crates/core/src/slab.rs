//! Storage for things that come and go, with reused indices.

use std::ops::{Index, IndexMut};

use crate::id::Id;

/// Items by id; ids of removed items are reused, most recently freed first.
#[derive(Clone, Debug)]
pub struct Slab<I, T> {
    items: Vec<Option<T>>,
    free: Vec<I>,
}

impl<I: Id, T> Slab<I, T> {
    /// Empty.
    pub const fn new() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }

    /// Stores an item.
    pub fn insert(&mut self, item: T) -> I {
        if let Some(id) = self.free.pop() {
            self.items[id.index()] = Some(item);
            id
        } else {
            self.items.push(Some(item));
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
        self.items[id.index()].as_mut().expect("the id belongs to a live item")
    }
}
