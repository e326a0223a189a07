//! The files that users write – platforms, profiles, scenarios – and how they become a [`System`](crate::system::System).

mod architecture;
mod check;
mod distribution;
mod document;
mod error;
mod field;
mod files;
mod library;
mod limits;
mod message;
mod overrides;
mod platform;
mod profile;
mod provenance;
mod resolve;
mod scenario;
mod schema;
mod trace;

pub use document::Document;
pub use error::{SpecError, SpecErrors};
pub use field::{Field, Step};
pub use files::{NoFiles, ReadFile, is_path};
pub use library::{Entry, FileKind, Library};
pub use overrides::Override;
pub use resolve::Options;
pub use schema::schema;
pub use trace::{TraceWindow, read_trace};

pub use architecture::{Mistake, NetworkSpec, TransformerSpec};
pub use distribution::{DistributionKind, DistributionSpec};
pub use platform::{
    LinkSpec, MemorySpec, OperatingPointSpec, PlatformSpec, PowerSpec, Preemption, ProcessorKind, ProcessorSpec,
    ThermalSpec,
};
pub use profile::{
    CostSpec, ExitsPer, ExpertsSpec, KvOffloadSpec, ModelShape, ModelSpec, ProfileSpec, QualitySpec, QuantilesSpec,
    Replacement, ReuseSpec, SplitSpec, VariantSpec,
};
pub use provenance::{ProvenanceKind, SourceSpec};
pub use scenario::{
    ActionsSpec, AdapterSpec, Any, ArrivalProcess, ArrivalSpec, ChainSpec, ClassSpec, ContentSpec, DraftSpec, DropRule,
    EdgeSpec, Overflow, PhaseSpec, RepeatSpec, ScenarioSpec, SessionSpec, StageSpec, StreamSpec, VariantsSpec,
    VariationKind, VariationSpec,
};
