//! `min-min`: of all ready stages, the one that can be done first is placed first, busy processors included.

use onbeat_core::policy::Policy;
use onbeat_core::system::System;

use crate::batch_mode::{BatchMode, Rule};
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "min-min",
    summary: "The stage that can be done first is placed first, where it finishes first; busy processors included",
    group: "DAG",
    parameters: &[],
    reference: "Ibarra and Kim, Heuristic Algorithms for Scheduling Independent Tasks on Nonidentical Processors, J. ACM 24(2), 1977; as batch-mode mapping: Maheswaran et al., JPDC 59(2), 1999",
    build,
};

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(BatchMode::new(Rule::MinMin)))
}
