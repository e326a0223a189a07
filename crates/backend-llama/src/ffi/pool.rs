//! Threads that a model computes with.

use std::ptr::NonNull;
use std::sync::Mutex;

use llama_cpp_sys_2 as sys;
use onbeat_backend::Error;

/// Threads, bound to cores if so wished. Whoever computes with them holds the lock: they can work on one thing at a time.
#[derive(Debug)]
pub(crate) struct Pool {
    pool: NonNull<sys::ggml_threadpool>,
    pub(super) busy: Mutex<()>,
}

// SAFETY: the pool is used under its lock only, and any thread may hand it work: none of it belongs to the thread that made it.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// Threads, of which the one that computes is one. With as many cores as threads each has its own.
    pub(crate) fn new(threads: usize, cores: &[usize]) -> Result<Self, Error> {
        super::init();
        let wrong = |what: String| Error::invalid_input(format!("llama.cpp's threads: {what}"));
        let count = i32::try_from(threads).ok().filter(|&count| count >= 1);
        // SAFETY: takes a number, and returns plain data.
        let mut params = unsafe { sys::ggml_threadpool_params_default(count.unwrap_or(1)) };
        let most = params.cpumask.len();
        if count.is_none() || threads > most {
            return Err(wrong(format!("{threads} of them; 1 to {most} would be right")));
        }
        for &core in cores {
            let bound = params.cpumask.get_mut(core);
            *bound.ok_or_else(|| wrong(format!("core {core}; 0 to {} would be right", most - 1)))? = true;
        }
        params.strict_cpu = cores.len() >= threads;
        // Waiting busily between two graphs is for those who own their cores.
        params.poll = if cores.is_empty() { 0 } else { params.poll };
        // Else this thread would be bound, and not the one that computes.
        params.paused = true;
        // SAFETY: the parameters are complete and live through the call, which copies them.
        let pool = NonNull::new(unsafe { sys::ggml_threadpool_new(&raw mut params) });
        let pool = pool.ok_or_else(|| Error::device(format!("llama.cpp cannot start {threads} threads")))?;
        Ok(Self { pool, busy: Mutex::new(()) })
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_threadpool {
        self.pool.as_ptr()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: contexts that compute with the pool keep it alive, so nothing uses it any more; it is freed once.
        unsafe { sys::ggml_threadpool_free(self.pool.as_ptr()) };
    }
}
