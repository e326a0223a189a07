//! `decode-first`: streams by deadline; below them answers before prompts. Its order is tested next to `prefill-first`.

use onbeat_core::cost::Phase;
use onbeat_core::policy::Policy;
use onbeat_core::system::System;

use crate::parameters::Parameters;
use crate::prefill_first::{PhaseFirst, SARATHI};
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "decode-first",
    summary: "Streams with deadlines first; then answers that have begun, before any new prompt",
    group: "generative",
    parameters: &[],
    reference: SARATHI,
    build,
};

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, _: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(PhaseFirst::new(Phase::Decode, false)))
}
