//! A context: the cache of one sequence, and what computes on it.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, PoisonError};

use llama_cpp_sys_2 as sys;
use onbeat_backend::{Control, Error, ErrorKind};

use super::{Pool, Token, Weights, log};

/// The only sequence of a context.
const SEQUENCE: sys::llama_seq_id = 0;

/// The cache of one sequence, and what computes on it.
#[derive(Debug)]
pub(crate) struct Context {
    context: NonNull<sys::llama_context>,
    /// What the library asks whether to go on; null while it does not compute. On the heap, since the library keeps its address.
    control: Box<AtomicPtr<Control>>,
    /// Kept alive for the context.
    weights: Arc<Weights>,
    pool: Arc<Pool>,
}

// SAFETY: a context may be used by any thread, one at a time, which `&mut` ensures.
unsafe impl Send for Context {}

/// How computing has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// All is done.
    Done,
    /// It was cancelled, and what was begun was taken back.
    Cancelled,
}

impl Context {
    /// A context of so many tokens, which takes up to `ubatch` at once.
    pub(crate) fn new(
        weights: &Arc<Weights>,
        pool: &Arc<Pool>,
        threads: usize,
        length: u32,
        ubatch: u32,
        on_gpu: bool,
    ) -> Result<Self, Error> {
        let control: Box<AtomicPtr<Control>> = Box::default();
        let threads = i32::try_from(threads).map_err(|_| Error::invalid_input("too many threads"))?;
        // SAFETY: takes nothing, and returns plain data.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = length;
        params.n_batch = ubatch;
        params.n_ubatch = ubatch;
        params.n_seq_max = 1;
        params.n_threads = threads;
        params.n_threads_batch = threads;
        params.offload_kqv = on_gpu;
        params.op_offload = on_gpu;
        params.no_perf = true;
        params.abort_callback = Some(is_cancelled);
        params.abort_callback_data = ptr::from_ref(&*control).cast_mut().cast();
        log::take();
        // SAFETY: the weights are valid and kept alive; the callback's data lives on the heap as long as the context does.
        let context = NonNull::new(unsafe { sys::llama_init_from_model(weights.as_ptr(), params) });
        let context = context.ok_or_else(|| {
            let what = format!("no context of {length} tokens: {}", log::take());
            Error::new(ErrorKind::OutOfMemory, what)
        })?;
        let made = Self { context, control, weights: Arc::clone(weights), pool: Arc::clone(pool) };
        // SAFETY: the context is valid.
        if unsafe { sys::llama_get_memory(context.as_ptr()) }.is_null() {
            return Err(Error::unsupported("the model keeps no cache, so it is none that writes token by token"));
        }
        // SAFETY: context and pool are valid, and the pool is kept alive as long as the context.
        unsafe { sys::llama_attach_threadpool(context.as_ptr(), pool.as_ptr(), pool.as_ptr()) };
        Ok(made)
    }

    /// Length of the context [tokens]. May be more than was asked for.
    pub(crate) fn length(&self) -> usize {
        // SAFETY: the context is valid.
        unsafe { sys::llama_n_ctx_seq(self.context.as_ptr()) as usize }
    }

    /// How many tokens the cache holds.
    pub(crate) fn cached(&self) -> usize {
        // SAFETY: the context is valid, and has a memory, as `new` has seen.
        let last = unsafe { sys::llama_memory_seq_pos_max(sys::llama_get_memory(self.context.as_ptr()), SEQUENCE) };
        usize::try_from(last + 1).unwrap_or(0)
    }

    /// Empties the cache.
    pub(crate) fn clear(&mut self) {
        // SAFETY: the context is valid, and has a memory.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context.as_ptr()), false) };
    }

    /// Adds tokens to the cache, at most as many as the context takes at once. The logits of the last one can be asked for then.
    pub(crate) fn decode(&mut self, tokens: &[Token], control: &Control) -> Result<Decoded, Error> {
        let pool = Arc::clone(&self.pool);
        let _busy = pool.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if control.is_cancelled() {
            return Ok(Decoded::Cancelled);
        }
        self.compute(tokens, control)
    }

    /// Computes. Whoever calls holds the pool's lock.
    fn compute(&mut self, tokens: &[Token], control: &Control) -> Result<Decoded, Error> {
        let count = i32::try_from(tokens.len()).expect("at most a micro-batch");
        log::take();
        self.control.store(ptr::from_ref(control).cast_mut(), Ordering::Release);
        // SAFETY: the tokens live through the call, which does not write to them, and are ones of the vocabulary; context and pool are
        // valid and used by nobody else meanwhile: `&mut` and the caller's lock ensure it.
        let result = unsafe {
            let batch = sys::llama_batch_get_one(tokens.as_ptr().cast_mut(), count);
            sys::llama_decode(self.context.as_ptr(), batch)
        };
        self.control.store(ptr::null_mut(), Ordering::Release);
        match result {
            0 => Ok(Decoded::Done),
            2 => Ok(Decoded::Cancelled),
            1 | -2 => Err(Error::new(ErrorKind::OutOfMemory, format!("llama.cpp has no memory left: {}", log::take()))),
            code => Err(Error::device(format!("llama.cpp cannot compute (code {code}): {}", log::take()))),
        }
    }

    /// The most probable next token; of several, the first.
    pub(crate) fn most_probable(&mut self) -> Result<Token, Error> {
        // SAFETY: the context is valid; -1 asks for the last token whose logits there are.
        let logits = unsafe { sys::llama_get_logits_ith(self.context.as_ptr(), -1) };
        if logits.is_null() {
            return Err(Error::device("llama.cpp gives no logits"));
        }
        // SAFETY: a row of logits has one number per token of the vocabulary, and is valid until the next computation.
        let logits = unsafe { std::slice::from_raw_parts(logits, self.weights.vocabulary()) };
        let mut best = 0;
        for (token, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = token;
            }
        }
        Token::try_from(best).map_err(|_| Error::invalid_model("the vocabulary is empty or too large"))
    }

    /// Size of what [`Context::save`] gives [bytes].
    pub(crate) fn saved_size(&self) -> usize {
        // SAFETY: the context is valid, and not changed.
        unsafe { sys::llama_state_seq_get_size(self.context.as_ptr(), SEQUENCE) }
    }

    /// The cache, to be restored in another context of the same weights.
    pub(crate) fn save(&self) -> Result<Vec<u8>, Error> {
        let mut saved = vec![0; self.saved_size()];
        // SAFETY: the context is valid, and the buffer as long as is said.
        let length =
            unsafe { sys::llama_state_seq_get_data(self.context.as_ptr(), saved.as_mut_ptr(), saved.len(), SEQUENCE) };
        if length == 0 || length > saved.len() {
            return Err(Error::device(format!("llama.cpp cannot save its cache: {}", log::take())));
        }
        saved.truncate(length);
        Ok(saved)
    }

    /// Restores a cache. What was in it before is lost, even if it fails.
    pub(crate) fn restore(&mut self, saved: &[u8]) -> Result<(), Error> {
        self.clear();
        log::take();
        // SAFETY: the context is valid, and the buffer as long as is said; it holds what `save` gave, which a checksum has shown.
        let length =
            unsafe { sys::llama_state_seq_set_data(self.context.as_ptr(), saved.as_ptr(), saved.len(), SEQUENCE) };
        if length == 0 {
            self.clear();
            return Err(Error::unsupported(format!("llama.cpp cannot take this cache over: {}", log::take())));
        }
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing else has the context, and it is freed once, before the weights and the pool that it uses.
        unsafe { sys::llama_free(self.context.as_ptr()) };
    }
}

/// Whether the computation shall end.
unsafe extern "C" fn is_cancelled(control: *mut c_void) -> bool {
    // SAFETY: `new` passes a pointer that lives on the heap as long as the context does.
    let control = unsafe { &*control.cast_const().cast::<AtomicPtr<Control>>() };
    // SAFETY: `decode` stores a control that outlives the computation, and takes it away after that.
    let control = unsafe { control.load(Ordering::Acquire).as_ref() };
    control.is_some_and(Control::is_cancelled)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_library_asks_whether_to_go_on_and_takes_back_what_it_began() {
        let Some(folder) = std::env::var_os("ONBEAT_TEST_MODELS") else {
            println!("skipped: ONBEAT_TEST_MODELS is not set");
            return;
        };
        let file = Path::new(&folder).join("smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
        let weights = Arc::new(Weights::load(&file, 0, &Control::new()).unwrap());
        let pool = Arc::new(Pool::new(1, &[]).unwrap());
        let mut context = Context::new(&weights, &pool, 1, 64, 16, false).unwrap();
        let tokens = weights.tokens("one two three four").unwrap();
        assert_eq!(context.decode(&tokens, &Control::new()).unwrap(), Decoded::Done);
        let next = context.most_probable().unwrap();
        let cancelled = Control::new();
        cancelled.cancel();
        // Not `decode`, which would not even begin.
        assert_eq!(context.compute(&[next], &cancelled).unwrap(), Decoded::Cancelled);
        assert_eq!(context.cached(), tokens.len());
        assert_eq!(context.compute(&[next], &Control::new()).unwrap(), Decoded::Done);
        assert_eq!(context.cached(), tokens.len() + 1);
    }
}
