//! What llama.cpp says while it works. It is kept instead of printed, so that an error can tell why.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use llama_cpp_sys_2 as sys;

/// How much is kept [bytes].
const KEPT_MAX: usize = 2000;

static SAID: Mutex<String> = Mutex::new(String::new());

/// Takes the messages from now on.
pub(super) fn redirect() {
    // SAFETY: the function fits the declared type, needs no data, and can be called at any time from any thread.
    unsafe { sys::llama_log_set(Some(keep), ptr::null_mut()) };
}

/// The last errors and warnings since this was asked, for a message.
pub(super) fn take() -> String {
    let said = std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner));
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "llama.cpp gives no reason".to_owned() } else { lines.join("; ") }
}

unsafe extern "C" fn keep(level: sys::ggml_log_level, message: *const c_char, _: *mut c_void) {
    if level != sys::GGML_LOG_LEVEL_ERROR && level != sys::GGML_LOG_LEVEL_WARN {
        return;
    }
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the library hands over a string that ends with a zero and lives through the call.
    said.push_str(&unsafe { super::text(message) });
    said.push('\n');
    if said.len() > KEPT_MAX {
        let surplus = said.ceil_char_boundary(said.len() - KEPT_MAX);
        said.drain(..surplus);
    }
}
