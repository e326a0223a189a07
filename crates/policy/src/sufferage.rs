//! `sufferage`: of all ready stages, the one that loses most on its second-best processor is placed first.

use onbeat_core::policy::Policy;
use onbeat_core::system::System;

use crate::batch_mode::{BatchMode, Rule};
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "sufferage",
    summary: "The stage that would lose most on its second-best processor is placed first, where it finishes first",
    group: "DAG",
    parameters: &[],
    reference: "Maheswaran, Ali, Siegel, Hensgen and Freund, Dynamic Mapping of a Class of Independent Tasks onto Heterogeneous Computing Systems, JPDC 59(2), 1999",
    build,
};

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(BatchMode::new(Rule::Sufferage)))
}
