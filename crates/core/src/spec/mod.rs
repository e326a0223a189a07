//! The files that users write – platforms, profiles, scenarios – and how they become a [`System`](crate::system::System).

mod distribution;
mod platform;
mod profile;
mod provenance;
mod scenario;

pub use distribution::{DistributionKind, DistributionSpec};
pub use platform::{
    LinkSpec, MemorySpec, OperatingPointSpec, PlatformSpec, Preemption, ProcessorKind, ProcessorSpec,
};
pub use profile::{CostSpec, ModelShape, ModelSpec, ProfileSpec, QualitySpec, QuantilesSpec, VariantSpec};
pub use provenance::{ProvenanceKind, SourceSpec};
pub use scenario::{
    ArrivalProcess, ArrivalSpec, ChainSpec, DropRule, EdgeSpec, Overflow, PhaseSpec, ScenarioSpec, SessionSpec, StageSpec,
    StreamSpec, VariationKind, VariationSpec,
};
