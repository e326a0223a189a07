//! What the runtime needs from outside: models, inputs, and somewhere to put outputs.

use std::fmt::Debug;
use std::sync::Arc;

use onbeat_backend::{Control, Data, Error, Model};
use onbeat_core::id::{ModelId, NodeId, ProcessorId, SourceId};
use onbeat_core::units::Nanos;

/// Loads models onto processors. Called by the processors' own threads.
pub trait Library: Send + Sync + Debug {
    /// Loads a model and warms it up, so that its first inference is like any other.
    ///
    /// # Errors
    /// Names the model and what is wrong.
    fn load(&self, model: ModelId, processor: ProcessorId, control: &Control) -> Result<Arc<dyn Model>, Error>;

    /// Does a processor's work, all of it, on the calling thread or on one that suits the device better. Returns when it is done.
    fn host(&self, processor: ProcessorId, work: Box<dyn FnOnce() + Send + '_>) {
        let _ = processor;
        work();
    }
}

/// Where the data that starts jobs comes from. Called by the dispatcher: answers at once.
pub trait Feed: Send + Sync + Debug {
    /// The data of a source's job number `index`.
    fn data(&self, source: SourceId, index: u64) -> Vec<Data>;

    /// What stands in for the output of a stage that ran on a virtual device, for the real stages that follow.
    fn stand_in(&self, node: NodeId) -> Vec<Data> {
        let _ = node;
        Vec::new()
    }
}

/// Something that a stage has produced.
#[derive(Clone, Debug)]
pub struct Product {
    /// When.
    pub at: Nanos,
    /// Who released the job.
    pub source: SourceId,
    /// Serial number of the job.
    pub job: u64,
    /// The stage.
    pub node: NodeId,
    /// Number among the instances of its node in the job.
    pub instance: u32,
    /// What. For outputs that come in parts, the whole.
    pub data: Vec<Data>,
}

/// Something that went wrong without ending the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When.
    pub at: Nanos,
    /// Where.
    pub processor: ProcessorId,
    /// What.
    pub what: String,
}

/// Takes what stages produce, and what goes wrong. Called by the dispatcher: must not block.
pub trait Keep: Debug {
    /// A stage has produced something.
    fn product(&mut self, product: Product);

    /// Something went wrong without ending the run.
    fn trouble(&mut self, trouble: Trouble);
}
