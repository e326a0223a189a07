//! What the slots' threads are made of. A test puts instrumented ones in their place (`shuttled`).

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
pub(crate) use std::thread::yield_now;

pub(crate) use crossbeam_channel::{Receiver, Sender, TryRecvError};
