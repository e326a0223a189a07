//! A loaded file: weights, vocabulary, description.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};

use llama_cpp_sys_2 as sys;
use onbeat_backend::{Control, Error};

use super::Token;
use super::log;

/// A loaded file.
#[derive(Debug)]
pub(crate) struct Weights {
    model: NonNull<sys::llama_model>,
    vocab: NonNull<sys::llama_vocab>,
}

// SAFETY: a loaded model is not changed by any of the functions called here; llama.h calls its vocabulary's functions thread-safe.
unsafe impl Send for Weights {}
// SAFETY: as above.
unsafe impl Sync for Weights {}

impl Weights {
    /// Loads a file, with so many of its layers on a GPU.
    pub(crate) fn load(path: &Path, gpu_layers: u32, control: &Control) -> Result<Self, Error> {
        super::init();
        let about = |error: Error| error.about(&path.display().to_string());
        let file = path.to_str().and_then(|path| CString::new(path).ok());
        let file = file.ok_or_else(|| about(Error::invalid_input("llama.cpp takes only names that are UTF-8 text")))?;
        // SAFETY: takes nothing; the library is set up.
        if gpu_layers > 0 && !unsafe { sys::llama_supports_gpu_offload() } {
            let why = "gpu_layers > 0, and this build's llama.cpp finds no GPU; \
                       build with the feature `cuda`, `metal` or `vulkan`, or set gpu_layers = 0";
            return Err(about(Error::unsupported(why)));
        }
        // Without devices in the list, the library keeps to the cores even if it knows a GPU.
        let mut no_devices: [sys::ggml_backend_dev_t; 1] = [ptr::null_mut()];
        // SAFETY: takes nothing, and returns plain data.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = i32::try_from(gpu_layers).unwrap_or(i32::MAX);
        if gpu_layers == 0 {
            params.devices = no_devices.as_mut_ptr();
        }
        params.progress_callback = Some(go_on);
        params.progress_callback_user_data = ptr::from_ref(control).cast_mut().cast();
        log::take();
        // SAFETY: the name ends with a zero; it, the list of devices, and `control`, which the callback reads, live through the call.
        let model = unsafe { sys::llama_model_load_from_file(file.as_ptr(), params) };
        let Some(model) = NonNull::new(model) else {
            let failed = || about(Error::invalid_model(format!("llama.cpp cannot load it: {}", log::take())));
            return Err(if control.is_cancelled() { Error::cancelled() } else { failed() });
        };
        // SAFETY: the model is valid; its vocabulary lives as long as it does.
        let vocab = NonNull::new(unsafe { sys::llama_model_get_vocab(model.as_ptr()) }.cast_mut());
        let vocab = vocab.expect("a loaded model has a vocabulary");
        let weights = Self { model, vocab };
        // SAFETY: the model is valid.
        let decodes =
            unsafe { sys::llama_model_has_decoder(model.as_ptr()) && !sys::llama_model_has_encoder(model.as_ptr()) };
        if !decodes {
            return Err(about(Error::unsupported("it is no decoder-only language model, the only kind that is run")));
        }
        Ok(weights)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.model.as_ptr()
    }

    /// What it is, as llama.cpp describes it: architecture, size, quantisation.
    pub(crate) fn description(&self) -> String {
        let mut buffer = [0_u8; 256];
        // SAFETY: the model is valid, and the buffer as long as is said; the function ends what it writes with a zero.
        let length =
            unsafe { sys::llama_model_desc(self.as_ptr(), buffer.as_mut_ptr().cast::<c_char>(), buffer.len()) };
        let length = usize::try_from(length).unwrap_or(0).min(buffer.len() - 1);
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Size of the tensors [bytes], and number of parameters.
    pub(crate) fn size(&self) -> (u64, u64) {
        // SAFETY: the model is valid.
        unsafe { (sys::llama_model_size(self.as_ptr()), sys::llama_model_n_params(self.as_ptr())) }
    }

    /// The context length that it was trained with [tokens].
    pub(crate) fn trained_context(&self) -> u32 {
        // SAFETY: the model is valid.
        u32::try_from(unsafe { sys::llama_model_n_ctx_train(self.as_ptr()) }).unwrap_or(0)
    }

    /// Whether it keeps a cache that grows with each token, and nothing else.
    pub(crate) fn is_attention_only(&self) -> bool {
        // SAFETY: the model is valid.
        unsafe { !sys::llama_model_is_recurrent(self.as_ptr()) && !sys::llama_model_is_hybrid(self.as_ptr()) }
    }

    /// Number of layers, and of values that a layer's cache keeps per token, keys and values together.
    pub(crate) fn cache_shape(&self) -> (u64, u64) {
        let number = |value: i32| u64::try_from(value).unwrap_or(0);
        // SAFETY: the model is valid.
        let (layers, embedding, heads, kv_heads) = unsafe {
            let model = self.as_ptr();
            (
                number(sys::llama_model_n_layer(model)),
                number(sys::llama_model_n_embd(model)),
                number(sys::llama_model_n_head(model)).max(1),
                number(sys::llama_model_n_head_kv(model)),
            )
        };
        let architecture = self.metadata("general.architecture").unwrap_or_default();
        let length = |of: &str| {
            let stated = self.metadata(&format!("{architecture}.attention.{of}_length"));
            stated.and_then(|text| text.parse().ok()).unwrap_or(embedding / heads)
        };
        (layers, kv_heads * (length("key") + length("value")))
    }

    /// A value of the file's description.
    fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buffer = [0_u8; 128];
        // SAFETY: the model is valid, the key ends with a zero, and the buffer is as long as is said.
        let length = unsafe {
            sys::llama_model_meta_val_str(
                self.as_ptr(),
                key.as_ptr(),
                buffer.as_mut_ptr().cast::<c_char>(),
                buffer.len(),
            )
        };
        let length = usize::try_from(length).ok()?.min(buffer.len() - 1);
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// The prompt as the file's chat template writes a user's turn, up to where the reply begins; `None` if the file has no template.
    pub(crate) fn chat(&self, prompt: &str) -> Result<Option<String>, Error> {
        // SAFETY: the model is valid, and a missing name asks for the default template, which lives as long as the model does.
        let template = unsafe { sys::llama_model_chat_template(self.as_ptr(), ptr::null()) };
        if template.is_null() {
            return Ok(None);
        }
        let content = CString::new(prompt).map_err(|_| Error::invalid_input("the prompt contains a zero byte"))?;
        let turn = sys::llama_chat_message { role: c"user".as_ptr(), content: content.as_ptr() };
        let mut buffer = vec![0_u8; 2 * prompt.len() + 512];
        loop {
            let room = i32::try_from(buffer.len()).map_err(|_| Error::invalid_input("the prompt is too long"))?;
            // SAFETY: template, role and content end with zeros, one turn is passed as is said, and the buffer is as long as is said.
            let length = unsafe {
                sys::llama_chat_apply_template(
                    template,
                    &raw const turn,
                    1,
                    true,
                    buffer.as_mut_ptr().cast::<c_char>(),
                    room,
                )
            };
            let length = usize::try_from(length).map_err(|_| {
                Error::unsupported(
                    "llama.cpp does not know the file's chat template; set chat = false for plain prompts",
                )
            })?;
            if length <= buffer.len() {
                buffer.truncate(length);
                let text = String::from_utf8(buffer);
                return text.map(Some).map_err(|_| Error::invalid_model("the chat template is no UTF-8 text"));
            }
            buffer.resize(length, 0);
        }
    }

    /// A text's tokens, with what the model wants before it. Names of control tokens in it count as such.
    pub(crate) fn tokens(&self, text: &str) -> Result<Vec<Token>, Error> {
        let too_long = || Error::invalid_input("the prompt is too long");
        let length = i32::try_from(text.len()).map_err(|_| too_long())?;
        // No token is shorter than a byte, but for those that are put before and after.
        let mut tokens: Vec<Token> = vec![0; text.len() + 8];
        let room = i32::try_from(tokens.len()).map_err(|_| too_long())?;
        // SAFETY: the vocabulary is valid, and both buffers are as long as is said.
        let count = unsafe {
            sys::llama_tokenize(
                self.vocab.as_ptr(),
                text.as_ptr().cast::<c_char>(),
                length,
                tokens.as_mut_ptr(),
                room,
                true,
                true,
            )
        };
        tokens.truncate(usize::try_from(count).map_err(|_| too_long())?);
        Ok(tokens)
    }

    /// A token's bytes, which need not be whole characters. Control tokens have none.
    pub(crate) fn piece(&self, token: Token) -> Vec<u8> {
        let mut buffer = vec![0_u8; 64];
        // Once to learn its length, if it is a long one.
        for _ in 0..2 {
            let room = i32::try_from(buffer.len()).expect("the length of a token");
            // SAFETY: the vocabulary is valid, the token one that it made, and the buffer as long as is said.
            let length = unsafe {
                let into = buffer.as_mut_ptr().cast::<c_char>();
                sys::llama_token_to_piece(self.vocab.as_ptr(), token, into, room, 0, false)
            };
            match usize::try_from(length) {
                Ok(length) => {
                    buffer.truncate(length);
                    return buffer;
                }
                Err(_) => buffer.resize(length.unsigned_abs() as usize, 0),
            }
        }
        Vec::new()
    }

    /// Number of tokens in the vocabulary.
    pub(crate) fn vocabulary(&self) -> usize {
        // SAFETY: the vocabulary is valid.
        usize::try_from(unsafe { sys::llama_vocab_n_tokens(self.vocab.as_ptr()) }).unwrap_or(0)
    }

    /// Whether a reply ends with this token.
    pub(crate) fn is_end(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is valid, and the token one that it made.
        unsafe { sys::llama_vocab_is_eog(self.vocab.as_ptr(), token) }
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        // SAFETY: contexts keep the weights alive, so nothing uses them any more; they are freed once.
        unsafe { sys::llama_model_free(self.model.as_ptr()) };
    }
}

/// Whether loading shall go on.
unsafe extern "C" fn go_on(_progress: f32, control: *mut c_void) -> bool {
    // SAFETY: `load` passes a control that outlives the loading.
    let control = unsafe { &*control.cast_const().cast::<Control>() };
    !control.is_cancelled()
}
