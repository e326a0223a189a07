//! A GGUF file as a model.

use std::fs::File;
use std::io::{ErrorKind as IoKind, Read};
use std::path::Path;
use std::sync::Arc;

use onbeat_backend::{Control, Data, Device, Error, Footprint, Model, Session, Size, find_text};

use crate::ffi::{self, Context, Pool, Token, Weights};
use crate::session::LlamaSession;

/// How a file is loaded and run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LlamaOptions {
    /// Threads that it computes with, ≥ 1, the one that calls among them.
    pub threads: usize,
    /// Cores that they are bound to; empty: not bound. With fewer cores than threads, each may run on all of them.
    pub cores: Vec<usize>,
    /// Layers that are kept and computed on a GPU; 0: all on the cores. More than there are means all.
    pub gpu_layers: u32,
    /// Longest prompt and reply together that a session can hold [tokens], ≥ 1.
    pub context: u32,
    /// Tokens of a prompt that are computed at once [tokens], ≥ 1. Fewer make cancelling quicker and the prompt slower.
    pub ubatch: u32,
    /// Most tokens of a reply, ≥ 1.
    pub max_tokens: u32,
    /// Whether a prompt is one user's turn, written as the file's chat template says. A file without a template takes it as it is.
    pub chat: bool,
}

impl Default for LlamaOptions {
    /// One thread, not bound, no GPU, context of 2048, up to 128 tokens at once, replies of up to 256, chat.
    fn default() -> Self {
        Self { threads: 1, cores: Vec::new(), gpu_layers: 0, context: 2048, ubatch: 128, max_tokens: 256, chat: true }
    }
}

impl LlamaOptions {
    /// Changes options by key, as a platform file gives them for a device: `threads`, `gpu_layers`, `context`, `ubatch`, `max_tokens`,
    /// `chat`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) names a key that there is not, or a value of the wrong kind.
    pub fn read(mut self, pairs: &[(String, String)]) -> Result<Self, Error> {
        for (key, value) in pairs {
            let wrong = |right: &str| Error::invalid_input(format!("option {key} = `{value}`: {right} would be right"));
            let number = || value.parse::<u32>().map_err(|_| wrong("a whole number"));
            match key.as_str() {
                "threads" => self.threads = number()? as usize,
                "gpu_layers" => self.gpu_layers = number()?,
                "context" => self.context = number()?,
                "ubatch" => self.ubatch = number()?,
                "max_tokens" => self.max_tokens = number()?,
                "chat" => self.chat = value.parse().map_err(|_| wrong("`true` or `false`"))?,
                _ => {
                    let known = "threads, gpu_layers, context, ubatch, max_tokens, chat";
                    return Err(Error::invalid_input(format!(
                        "there is no option `{key}` for llama.cpp; there are: {known}"
                    )));
                }
            }
        }
        Ok(self)
    }
}

/// A language model from a GGUF file.
#[derive(Debug)]
pub struct Llama {
    loaded: Arc<Loaded>,
}

/// What sessions share.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) name: String,
    pub(crate) weights: Arc<Weights>,
    pub(crate) options: LlamaOptions,
    pool: Arc<Pool>,
}

impl Llama {
    /// Loads a file.
    ///
    /// # Errors
    /// Names the file: [`ErrorKind::NotFound`](onbeat_backend::ErrorKind::NotFound) if it is not there,
    /// [`ErrorKind::InvalidModel`](onbeat_backend::ErrorKind::InvalidModel) if it is damaged or llama.cpp does not know its architecture,
    /// [`ErrorKind::Unsupported`](onbeat_backend::ErrorKind::Unsupported) if it does not write text token by token, its chat template is not
    /// known, or there is no GPU for `gpu_layers`, [`ErrorKind::InvalidInput`](onbeat_backend::ErrorKind::InvalidInput) for options out of
    /// range, [`ErrorKind::Cancelled`](onbeat_backend::ErrorKind::Cancelled).
    pub fn load(path: &Path, options: LlamaOptions, control: &Control) -> Result<Self, Error> {
        let name = path.display().to_string();
        check_options(&options).map_err(|error| error.about(&name))?;
        check_magic(path).map_err(|error| error.about(&name))?;
        let missing = ffi::missing_instructions();
        if !missing.is_empty() {
            let what =
                format!("llama.cpp was built for instructions that this processor lacks: {}", missing.join(", "));
            return Err(Error::unsupported(what));
        }
        let pool = Arc::new(Pool::new(options.threads, &options.cores).map_err(|error| error.about(&name))?);
        let weights = Arc::new(Weights::load(path, options.gpu_layers, control)?);
        let trained = weights.trained_context();
        if trained > 0 && options.context > trained {
            let what = format!("{name}: context is {}; up to {trained}, with which it was trained", options.context);
            return Err(Error::invalid_input(what));
        }
        let loaded = Loaded { name, weights, options, pool };
        // A template that is not known shows now, and not with the first prompt.
        loaded.prompt("").map_err(|error| error.about(&loaded.name))?;
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// What the file holds, as llama.cpp describes it: architecture, size, quantisation.
    pub fn description(&self) -> String {
        self.loaded.weights.description()
    }
}

impl Model for Llama {
    /// The weights. Activations and caches belong to sessions.
    fn footprint(&self) -> Footprint {
        Footprint { weights: self.loaded.weights.size().0, activations: 0 }
    }

    fn size(&self, input: &[Data]) -> Result<Size, Error> {
        let tokens = self.loaded.prompt(find_text(input)?)?;
        Ok(Size { prompt: u32::try_from(tokens.len()).unwrap_or(u32::MAX), steps: 0 })
    }

    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(LlamaSession::new(Arc::clone(&self.loaded))?))
    }
}

impl Loaded {
    /// A prompt's tokens, with the template around it; at least one.
    pub(crate) fn prompt(&self, prompt: &str) -> Result<Vec<Token>, Error> {
        let whole = if self.options.chat { self.weights.chat(prompt)? } else { None };
        let tokens = self.weights.tokens(whole.as_deref().unwrap_or(prompt))?;
        if tokens.is_empty() && whole.is_some() {
            return Err(Error::invalid_model("its chat template is empty"));
        }
        Ok(tokens)
    }

    /// A context of its own for a session.
    pub(crate) fn context(&self) -> Result<Context, Error> {
        let options = &self.options;
        let ubatch = options.ubatch.min(options.context);
        let on_gpu = options.gpu_layers > 0;
        let context = Context::new(&self.weights, &self.pool, options.threads, options.context, ubatch, on_gpu);
        context.map_err(|error| error.about(&self.name))
    }

    /// Memory of a context's cache, which is there from the beginning [bytes]; 0 if it is not known. Two bytes for each value, as
    /// llama.cpp keeps them by default.
    pub(crate) fn cache_bytes(&self, length: usize) -> u64 {
        if !self.weights.is_attention_only() {
            return 0;
        }
        let (layers, values) = self.weights.cache_shape();
        2 * layers * values * length as u64
    }

    /// Tells models apart, for saved sessions.
    pub(crate) fn fingerprint(&self) -> [u64; 3] {
        let (bytes, parameters) = self.weights.size();
        [bytes, parameters, self.weights.vocabulary() as u64]
    }
}

/// llama.cpp's version and the instruction sets that it was built for.
pub fn description() -> String {
    format!("llama.cpp {} ({})", ffi::version(), ffi::system())
}

/// What this build's llama.cpp can compute on.
pub fn devices() -> Vec<Device> {
    ffi::devices()
}

fn check_options(options: &LlamaOptions) -> Result<(), Error> {
    let numbers = [("context", options.context), ("ubatch", options.ubatch), ("max_tokens", options.max_tokens)];
    // Beyond, llama.cpp's own signed numbers overflow.
    match numbers.iter().find(|(_, value)| *value == 0 || i32::try_from(*value).is_err()) {
        Some((name, value)) => {
            Err(Error::invalid_input(format!("{name} is {value}; 1 to {} would be right", i32::MAX)))
        }
        None => Ok(()),
    }
}

/// Tells apart what is no model before llama.cpp does, which explains less.
fn check_magic(path: &Path) -> Result<(), Error> {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    match read {
        Ok(()) if &magic == b"GGUF" => Ok(()),
        Err(error) if error.kind() != IoKind::UnexpectedEof => Err(Error::not_found(error.to_string())),
        _ => Err(Error::invalid_model("it is no GGUF file: it does not begin with `GGUF`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_by_name() {
        let read = |key: &str, value: &str| LlamaOptions::default().read(&[(key.to_owned(), value.to_owned())]);
        assert_eq!(LlamaOptions::default().read(&[]).unwrap(), LlamaOptions::default());
        assert_eq!(read("gpu_layers", "99").unwrap().gpu_layers, 99);
        assert!(!read("chat", "false").unwrap().chat);
        let wrong = read("chat", "no").unwrap_err();
        assert_eq!(wrong.to_string(), "option chat = `no`: `true` or `false` would be right");
        assert!(read("layers", "1").unwrap_err().to_string().contains("there are: threads"));
    }
}
