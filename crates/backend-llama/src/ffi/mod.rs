//! llama.cpp's C interface, made safe. Nothing outside of this folder is `unsafe`.
//!
//! Facts about the interface are those of `llama-cpp-sys-2` 0.1.160: its `llama.h`, and where that is silent, its sources.

#![expect(unsafe_code, reason = "llama.cpp is a C library")]
#![deny(clippy::undocumented_unsafe_blocks)]

mod context;
mod log;
mod pool;
mod weights;

use std::ffi::{CStr, c_char};
use std::sync::{Mutex, Once, PoisonError};

use llama_cpp_sys_2 as sys;
use onbeat_backend::{Device, DeviceKind, Granularity};

pub(crate) use context::{Context, Decoded};
pub(crate) use pool::Pool;
pub(crate) use sys::llama_token as Token;
pub(crate) use weights::Weights;

/// Sets the library up, once.
fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        log::redirect();
        // SAFETY: called once, before anything else of the library but where its messages go.
        unsafe { sys::llama_backend_init() };
    });
}

/// Version of the library.
pub(crate) fn version() -> String {
    // SAFETY: the function takes nothing, and its string is static.
    unsafe { text(sys::llama_version()) }
}

/// The instruction sets that it was built for.
pub(crate) fn system() -> String {
    static ONE: Mutex<()> = Mutex::new(());
    init();
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the library is set up. Its string stays as it is until the next call, which waits for the lock.
    unsafe { text(sys::llama_print_system_info()) }
}

/// Instruction sets that llama.cpp was built for, without looking for them when it runs, and that this processor lacks. The process
/// would end at the first of them.
#[cfg(target_arch = "x86_64")]
pub(crate) fn missing_instructions() -> Vec<&'static str> {
    let is_there = [
        ("avx", std::is_x86_feature_detected!("avx")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("bmi2", std::is_x86_feature_detected!("bmi2")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
    ];
    // SAFETY: the functions take nothing, and return how they were compiled.
    let is_used = unsafe {
        [
            sys::ggml_cpu_has_avx(),
            sys::ggml_cpu_has_avx2(),
            sys::ggml_cpu_has_bmi2(),
            sys::ggml_cpu_has_f16c(),
            sys::ggml_cpu_has_fma(),
            sys::ggml_cpu_has_avx512(),
        ]
    };
    let missing = is_there.iter().zip(is_used).filter(|((_, is_there), is_used)| *is_used != 0 && !is_there);
    missing.map(|((name, _), _)| *name).collect()
}

/// Elsewhere the instruction sets that it is built for are those that every processor of the kind has.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn missing_instructions() -> Vec<&'static str> {
    Vec::new()
}

/// What llama.cpp can compute on.
pub(crate) fn devices() -> Vec<Device> {
    init();
    // SAFETY: the library is set up, so the list of devices is complete and does not change any more.
    let count = unsafe { sys::ggml_backend_dev_count() };
    let device = |index| {
        // SAFETY: the index is below the count, so the device is valid; its strings are static.
        let (name, description, kind) = unsafe {
            let device = sys::ggml_backend_dev_get(index);
            (
                text(sys::ggml_backend_dev_name(device)),
                text(sys::ggml_backend_dev_description(device)),
                sys::ggml_backend_dev_type(device),
            )
        };
        let (kind, granularity) = match kind {
            sys::GGML_BACKEND_DEVICE_TYPE_CPU => (DeviceKind::Cpu, Granularity::Node),
            sys::GGML_BACKEND_DEVICE_TYPE_GPU | sys::GGML_BACKEND_DEVICE_TYPE_IGPU => {
                (DeviceKind::Gpu, Granularity::Segment)
            }
            _ => (DeviceKind::Other, Granularity::Segment),
        };
        Device { name, kind, description, granularity }
    };
    (0..count).map(device).collect()
}

/// A copy of a string of the library's; empty for none.
///
/// # Safety
/// The string, if there is one, ends with a zero and stays as it is until this returns.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().trim().to_owned()
}
