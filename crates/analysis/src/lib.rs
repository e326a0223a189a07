//! What can be computed from the events of a run, and from a system without running it.
//!
//! * [`statistics`]: the metrics of a run, streamed from its events in bounded memory;
//! * [`compare`]: intervals over seeds, paired differences between policies;
//! * [`offered`]: how much work arrives;
//! * [`bound`]: how many violations no policy can avoid;
//! * [`response_time`]: worst-case response times on one processor;
//! * [`queueing`]: mean waits of textbook queues;
//! * [`roofline`]: latencies that nobody measured, from the shape of a model and the peaks of a processor.

pub mod bound;
pub mod compare;
mod demand;
pub mod offered;
pub mod queueing;
pub mod response_time;
pub mod roofline;
pub mod statistics;
