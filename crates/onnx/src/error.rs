//! What can be wrong with an ONNX file.

use thiserror::Error as ThisError;

/// What is wrong with an ONNX file.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not the protocol-buffer message that an ONNX file consists of.
    #[error("not an ONNX file, or a damaged one: {0}")]
    Damaged(String),
    /// The message has no graph: an empty file, or another kind of protocol-buffer file.
    #[error("not an ONNX file: it has no graph")]
    NoGraph,
    /// A node takes a value that nothing makes.
    #[error("node `{node}` takes the value `{value}`, which no node, input or initialiser makes")]
    UnknownValue {
        /// Name of the node, or its operator if it has none.
        node: String,
        /// Name of the value.
        value: String,
    },
    /// Two nodes make the same value.
    #[error("the value `{0}` is made more than once")]
    MadeTwice(String),
    /// Nodes take what depends on their own outputs.
    #[error("node `{0}` depends on its own output")]
    Cycle(String),
    /// An initialiser whose data do not fill its shape, or lie elsewhere.
    #[error("initialiser `{name}`: {problem}")]
    Initialiser {
        /// Its name.
        name: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Values that were asked for are not in the graph, or cannot be computed from the inputs that were given.
    #[error("{0}")]
    Request(String),
}
