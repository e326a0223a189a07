//! Scheduling policies: pure state machines that see a [`View`](onbeat_core::policy::View) and write
//! [`Actions`](onbeat_core::policy::Actions). No clock, no I/O, no threads, no hidden randomness.
//!
//! One file per policy, each with a page in `docs/policies`. They are made from text by [`make`]:
//!
//! ```
//! # fn demo(system: &onbeat_core::system::System) -> Result<(), onbeat_policy::PolicyError> {
//! let policy = onbeat_policy::make("edf:preemptive=false", system)?;
//! # Ok(()) }
//! assert!(onbeat_policy::all().iter().any(|policy| policy.name == "edf"));
//! ```
//!
//! # Rules that all policies share
//! * **Ties** between stages go to the one that became ready first (by [`Stage::serial`](onbeat_core::state::Stage::serial), which
//!   a stage keeps through all of its phases and preemptions); ties between processors go to the one that comes first in the platform.
//! * **Batches**: a stage in decode that finds no idle processor joins a running batch of its model, where the profile allows it.
//! * **Preemption** is asked for only when no idle processor and no batch takes the stage, only on processors that preempt, only
//!   against strictly less urgent work, and at most once per run. The slot is given out in a later decision, when it is free. Policies
//!   that hold work back or divide processors (`k-edf`, `heterogeneous-priority`, `utilisation-partition`, `pd-partition`, …) say on their
//!   pages what else they take off.
//! * **Nothing is dropped**, except by `skip-over`, `mk-firm`, `band-lsf`, `throttle`, `onbeat`, `mixed-criticality` and `dream:drop=true`; late jobs are the scenario's business.
//! * A decision costs about ready stages × processors – each page says what exactly –, and allocates nothing once its buffers have grown.

mod attention_offload;
mod band_lsf;
mod band_sel;
mod bandit;
mod bandwidth_aware;
mod batch_mode;
mod best_effort;
mod bus;
mod cbs;
mod cfs;
mod chain_edf;
mod content_aware;
mod cost_aware;
mod cpop;
mod cycle_conserving_edf;
mod dag;
mod decode_first;
mod dispatch;
mod dm;
mod dream;
mod dysta;
mod edf;
mod edf_vd;
mod edzl;
mod eft;
mod exclusive_lru;
mod fcfs;
mod fixed_priority;
mod flow_prefill;
mod foreseen;
mod generative;
mod heft;
mod heft_plan;
mod heft_reserved;
mod hetero_split;
mod heterogeneous_priority;
mod jitserve;
mod k_edf;
mod kv_offload;
mod kv_priority;
mod latency_greedy;
mod laxity;
mod llf;
mod llumnix;
mod lookahead;
mod max_min;
mod mct;
mod min_min;
mod mixed_criticality;
mod mk_firm;
mod mlfq;
mod npu_prefill;
mod olb;
mod onbeat;
mod outcomes;
mod p_edf;
mod parameters;
mod pd_adaptive;
mod pd_partition;
mod peft;
mod plan;
mod planaria;
mod planned;
mod predicted_sjf;
mod prefill_first;
mod prema;
mod rate_limiter;
mod recut;
mod registry;
mod residency;
mod round_robin;
mod saga;
mod sarathi;
mod serving;
mod sjf;
mod skip_join_mlfq;
mod skip_over;
mod slack_chunk;
mod slots;
mod spare;
mod speculative;
mod srpt;
mod state_aware;
mod static_mapping;
mod sufferage;
mod supernet;
mod tbs;
mod terastal;
#[cfg(test)]
mod test_rig;
mod throttle;
mod times;
mod timetable;
mod tuning;
mod usage;
mod utilisation_partition;
mod variants;
mod waiting;

pub use registry::{ParameterInfo, PolicyError, PolicyInfo, STANDARD, all, find, group, make};
