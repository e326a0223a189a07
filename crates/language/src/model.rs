//! A loaded language model.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use onbeat_backend::{Control, Data, Dim, Error, Footprint, Graph, Model, Port, Session, Size, Step, find_text};

use crate::chat::{SYSTEM_PROMPT, prompt};
use crate::session::{LanguageSession, step_together};
use crate::tokenizer::Tokenizer;

/// How a model answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What the model is told to be, before each prompt; empty: nothing.
    pub system: String,
    /// The longest answer [tokens], ≥ 1.
    pub tokens_max: u32,
    /// 0: always the likeliest token. Above: a token by chance, the likelihoods' logarithms divided by this.
    pub temperature: f32,
    /// Seed of that chance. The same seed and prompt give the same answer.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { system: SYSTEM_PROMPT.to_owned(), tokens_max: 128, temperature: 0.0, seed: 0 }
    }
}

/// A loaded language model. Its sessions share the weights.
#[derive(Debug)]
pub struct LanguageModel {
    shared: Arc<Shared>,
}

/// What all sessions use.
#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    pub(crate) graph: Arc<dyn Graph>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) context: usize,
    pub(crate) caches: Vec<Cache>,
    pub(crate) options: Options,
}

/// Keys or values of a layer, as an input and an output of the graph.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) past: String,
    pub(crate) present: String,
    pub(crate) heads: usize,
    /// Numbers per head.
    pub(crate) head: usize,
}

impl LanguageModel {
    pub(crate) fn new(
        name: String,
        graph: Arc<dyn Graph>,
        tokenizer: Tokenizer,
        context: usize,
        options: Options,
    ) -> Result<Self, Error> {
        if options.tokens_max == 0 || !options.temperature.is_finite() || options.temperature < 0.0 {
            return Err(Error::invalid_input(format!(
                "tokens_max {} must be at least 1, temperature {} at least 0",
                options.tokens_max, options.temperature
            )));
        }
        let caches = caches(graph.inputs())?;
        let outputs = graph.outputs();
        let wanted = caches.iter().map(|it| it.present.as_str()).chain(["logits"]);
        for name in wanted {
            if !outputs.iter().any(|it| it.name == name) {
                return Err(Error::invalid_model(format!("the network of the language model has no output `{name}`")));
            }
        }
        let tokenizer = Arc::new(tokenizer);
        Ok(Self { shared: Arc::new(Shared { name, graph, tokenizer, context, caches, options }) })
    }

    /// The same model with another graph, for tests.
    #[cfg(test)]
    pub(crate) fn with_graph(&self, graph: Arc<dyn Graph>) -> Self {
        let Shared { name, tokenizer, context, options, .. } = &*self.shared;
        let caches = caches(graph.inputs()).expect("it is the same network");
        let (name, tokenizer, options) = (name.clone(), Arc::clone(tokenizer), options.clone());
        Self { shared: Arc::new(Shared { name, graph, tokenizer, context: *context, caches, options }) }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The name that its file gives it.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Tokens that a prompt and its answer may have together.
    pub fn context(&self) -> usize {
        self.shared.context
    }
}

/// The caches among a graph's inputs: four dimensions, the third free.
fn caches(inputs: &[Port]) -> Result<Vec<Cache>, Error> {
    let mut caches = Vec::new();
    for port in inputs.iter().filter(|port| port.name != "input_ids") {
        let middle = port.name.strip_prefix("past_key_values");
        let (Some(middle), &[_, Dim::Fixed(heads), _, Dim::Fixed(head)]) = (middle, port.shape.as_slice()) else {
            let (name, shape) = (&port.name, &port.shape);
            return Err(Error::invalid_model(format!(
                "the network of the language model has an input `{name}` of shape {shape:?}, which is no cache"
            )));
        };
        caches.push(Cache { past: port.name.clone(), present: format!("present{middle}"), heads, head });
    }
    if caches.is_empty() || caches.len() + 1 != inputs.len() {
        return Err(Error::invalid_model("the network of the language model needs an input `input_ids`, and caches"));
    }
    Ok(caches)
}

impl Shared {
    /// The tokens of the prompt that an input holds.
    pub(crate) fn prompt(&self, input: &[Data]) -> Result<Vec<u32>, Error> {
        let text = find_text(input)?.trim();
        if text.is_empty() {
            return Err(Error::invalid_input("the prompt is empty"));
        }
        // No token is longer than the longest, so a text beyond this cannot fit, and need not be split to know it.
        let too_long = |tokens: usize| {
            let context = self.context;
            Error::invalid_input(format!(
                "the prompt has {tokens} tokens or more; with its answer it may have {context}"
            ))
        };
        let tokens_min = text.len() / self.tokenizer.bytes_max().max(1);
        if tokens_min >= self.context {
            return Err(too_long(tokens_min));
        }
        let tokens = prompt(&self.tokenizer, &self.options.system, text)?;
        // One more for the answer, or there is none.
        if tokens.is_empty() || tokens.len() >= self.context {
            return Err(too_long(tokens.len()));
        }
        Ok(tokens)
    }
}

impl Model for LanguageModel {
    fn footprint(&self) -> Footprint {
        self.shared.graph.footprint()
    }

    fn size(&self, input: &[Data]) -> Result<Size, Error> {
        Ok(Size { prompt: self.shared.prompt(input)?.len() as u32, steps: 0 })
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(LanguageSession::new(Arc::clone(&self.shared))))
    }

    fn members_max(&self) -> usize {
        self.shared.graph.members_max()
    }

    fn step_together(&self, sessions: &mut [&mut dyn Session], control: &Control) -> Result<Vec<Step>, Error> {
        if let [one] = sessions {
            return Ok(vec![one.step(1, control)?]);
        }
        let mut members = Vec::with_capacity(sessions.len());
        for session in sessions {
            let session: &mut dyn Any = *session;
            let own = session.downcast_mut::<LanguageSession>().filter(|it| it.is_of(&self.shared));
            members.push(
                own.ok_or_else(|| Error::invalid_input("a session of another model cannot share this one's steps"))?,
            );
        }
        step_together(&self.shared, &mut members, control)
    }
}
