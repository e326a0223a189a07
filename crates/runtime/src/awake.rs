//! Cores that do not sleep.
//!
//! An idle core sleeps, and takes time to wake: tens of microseconds on a laptop; in a virtual machine, whose host must first find it a
//! core of its own, up to milliseconds. For work of a few milliseconds that is most of what makes one inference slower than the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::threads::{be_last, pin};

/// Linux's request for a bound on the time to wake; it holds as long as the file is open (Linux, `power/pm_qos_interface`).
const LATENCY_FILE: &str = "/dev/cpu_dma_latency";

/// What puts cores to sleep, `none` where nothing but the hypervisor does.
const SLEEP_DRIVER_FILE: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// Keeps cores awake until it is dropped.
///
/// Where Linux decides how deeply a core sleeps, it is asked for no delay. Elsewhere – in a virtual machine, or without the right to ask
/// – each core gets a thread that does nothing and gives way to every other. Either costs energy, so nobody does it unasked.
#[derive(Debug)]
pub struct Awake {
    /// Linux's promise, for as long as it is open; `None`: the threads do it.
    promise: Option<std::fs::File>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// Keeps these cores awake.
    ///
    /// # Errors
    /// Says which core cannot be kept awake, and why.
    pub fn keep(cores: &[u32]) -> Result<Self, String> {
        let mut awake = Self { promise: request(), over: Arc::default(), threads: Vec::new() };
        if awake.promise.is_some() {
            return Ok(awake);
        }
        let (tell, told) = std::sync::mpsc::channel();
        for &core in cores {
            let (over, tell) = (Arc::clone(&awake.over), tell.clone());
            let spin = move || {
                // Never without giving way: a thread that spins like any other would take half of the core.
                let ready = pin(&[core]).and_then(|()| be_last());
                let spins = ready.is_ok();
                let _ = tell.send(ready);
                // Whoever waits for all answers waits until nobody can give one.
                drop(tell);
                while spins && !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            let thread = Builder::new().name(format!("awake-{core}")).spawn(spin);
            awake.threads.push(thread.map_err(|problem| format!("cannot start a thread: {problem}"))?);
        }
        drop(tell);
        told.iter().find_map(Result::err).map_or(Ok(awake), Err)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Asks for cores that wake without delay; `None` where nobody could grant it.
fn request() -> Option<std::fs::File> {
    use std::io::Write;
    let driver = std::fs::read_to_string(SLEEP_DRIVER_FILE).ok()?;
    if driver.trim() == "none" {
        return None;
    }
    let mut file = std::fs::OpenOptions::new().write(true).open(LATENCY_FILE).ok()?;
    // Microseconds, as a 32-bit integer.
    file.write_all(&0_i32.to_ne_bytes()).ok()?;
    Some(file)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_it_is_dropped_and_names_a_core_that_is_not_there() {
        let awake = Awake::keep(&[0]).unwrap();
        let threads: Vec<_> = awake.threads.iter().map(|thread| thread.thread().name().map(str::to_owned)).collect();
        assert!(awake.promise.is_some() || threads == [Some("awake-0".to_owned())]);
        drop(awake);
        if request().is_none() {
            let error = Awake::keep(&[100_000]).unwrap_err();
            assert!(error.contains("100000"), "{error}");
        }
    }
}
