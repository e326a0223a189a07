//! Typed indices: a [`ProcessorId`] cannot be used where a [`ModelId`] is meant.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

/// A dense index of one kind of thing.
pub trait Id: Copy {
    /// From a position.
    fn new(index: usize) -> Self;
    /// The position.
    fn index(self) -> usize;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl Id for $name {
            fn new(index: usize) -> Self {
                Self(u32::try_from(index).expect("fewer than 2^32 of one kind of thing"))
            }
            fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

ids! {
    /// A processor of the platform.
    ProcessorId;
    /// A model (in one variant) of the scenario.
    ModelId;
    /// A stream or session: whatever releases jobs.
    SourceId;
    /// A stage in the chains of the scenario: one node of one source's DAG.
    NodeId;
    /// A live job. Reused after the job has ended; the job's serial number is not.
    JobId;
    /// A live stage instance. Reused after the stage has ended; its serial number is not.
    StageId;
}

/// A set of processors, of those with numbers below 64: others are never in it. In files, a list of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessorSet(u64);

impl ProcessorSet {
    /// No processor.
    pub const EMPTY: Self = Self(0);

    /// The set of one processor.
    pub fn of(processor: ProcessorId) -> Self {
        Self(1_u64.checked_shl(processor.0).unwrap_or(0))
    }

    /// The set with one more processor.
    #[must_use]
    pub fn with(self, processor: ProcessorId) -> Self {
        Self(self.0 | Self::of(processor).0)
    }

    /// The set without a processor.
    #[must_use]
    pub fn without(self, processor: ProcessorId) -> Self {
        Self(self.0 & !Self::of(processor).0)
    }

    /// Whether a processor is in it.
    pub fn contains(self, processor: ProcessorId) -> bool {
        self.0 & Self::of(processor).0 != 0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// As bits by id.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The processors in order.
    pub fn iter(self) -> impl Iterator<Item = ProcessorId> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let next = (left != 0).then(|| ProcessorId(left.trailing_zeros()));
            left &= left.wrapping_sub(1);
            next
        })
    }
}

impl FromIterator<ProcessorId> for ProcessorSet {
    fn from_iter<T: IntoIterator<Item = ProcessorId>>(processors: T) -> Self {
        processors.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl Serialize for ProcessorSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for ProcessorSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<ProcessorId>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// A vector indexed by a typed id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdVec<I, T> {
    items: Vec<T>,
    #[serde(skip)]
    kind: PhantomData<fn(I)>,
}

impl<I: Id, T> IdVec<I, T> {
    /// Empty.
    pub const fn new() -> Self {
        Self { items: Vec::new(), kind: PhantomData }
    }

    /// Appends an item and returns its id.
    pub fn push(&mut self, item: T) -> I {
        self.items.push(item);
        I::new(self.items.len() - 1)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The item, if the id is in range.
    pub fn get(&self, id: I) -> Option<&T> {
        self.items.get(id.index())
    }

    /// All items in order of id.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items.iter()
    }

    /// All items in order of id, mutable.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.items.iter_mut()
    }

    /// All items with their ids, in order.
    pub fn enumerate(&self) -> impl ExactSizeIterator<Item = (I, &T)> + DoubleEndedIterator {
        self.items.iter().enumerate().map(|(i, item)| (I::new(i), item))
    }

    /// All items with their ids, in order, mutable.
    pub fn enumerate_mut(&mut self) -> impl ExactSizeIterator<Item = (I, &mut T)> + DoubleEndedIterator {
        self.items.iter_mut().enumerate().map(|(i, item)| (I::new(i), item))
    }

    /// All ids in order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = I> + DoubleEndedIterator + use<I, T> {
        (0..self.items.len()).map(I::new)
    }

    /// The plain slice.
    pub fn as_slice(&self) -> &[T] {
        &self.items
    }
}

impl<I: Id, T> Default for IdVec<I, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Id, T> FromIterator<T> for IdVec<I, T> {
    fn from_iter<A: IntoIterator<Item = T>>(items: A) -> Self {
        Self { items: items.into_iter().collect(), kind: PhantomData }
    }
}

impl<'a, I: Id, T> IntoIterator for &'a IdVec<I, T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<'a, I: Id, T> IntoIterator for &'a mut IdVec<I, T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter_mut()
    }
}

impl<I: Id, T> Index<I> for IdVec<I, T> {
    type Output = T;
    fn index(&self, id: I) -> &T {
        &self.items[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for IdVec<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.items[id.index()]
    }
}
