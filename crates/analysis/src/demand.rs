//! How many jobs a source releases, and how much work each needs at least: what [`offered`](crate::offered) and
//! [`bound`](crate::bound) rest on.

mod arrivals;
mod classes;
mod parts;

pub(crate) use arrivals::{Arrivals, IsRandom, epochs, largest, within};
pub(crate) use classes::{JobClass, groups_of_requests, job_classes, reach};
pub(crate) use parts::{Part, PartKind};
