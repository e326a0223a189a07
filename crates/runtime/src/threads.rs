//! Threads: where they run, and how urgently. Systems other than Linux are asked for neither, and say so.

/// Pins the calling thread to cores; all cores if there are none in the list.
///
/// # Errors
/// Says which cores were asked for and why that is not possible.
#[cfg(target_os = "linux")]
pub fn pin(cores: &[u32]) -> Result<(), String> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &core in cores {
        if core as usize >= CpuSet::MAX_CPU {
            return Err(format!("there is no core {core}"));
        }
        set.set(core as usize);
    }
    sched_setaffinity(None, &set).map_err(|problem| format!("cannot run on cores {cores:?}: {problem}"))
}

/// Pins the calling thread to cores; all cores if there are none in the list.
///
/// # Errors
/// On this system no thread can be pinned.
#[cfg(not(target_os = "linux"))]
pub fn pin(cores: &[u32]) -> Result<(), String> {
    if cores.is_empty() { Ok(()) } else { Err(format!("cannot run on cores {cores:?}: only Linux pins threads")) }
}

/// Lets every other thread go before the calling one, which then uses what is left: for threads that write records and outputs.
/// Where the system does not allow it, nothing changes.
pub fn stand_back() {
    #[cfg(target_os = "linux")]
    // On Linux a thread is its own process here; `None` is the calling one.
    let _ = rustix::process::setpriority_process(None, 19);
}

/// Lets every other thread go before the calling one, at once and entirely (`SCHED_IDLE`).
///
/// # Errors
/// Says why that is not possible.
#[cfg(target_os = "linux")]
pub(crate) fn be_last() -> Result<(), String> {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)
        .map_err(|problem| format!("no thread can be made to give way to all others: {problem}"))
}

/// Lets every other thread go before the calling one.
///
/// # Errors
/// Other systems are not asked for it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn be_last() -> Result<(), String> {
    Err("no thread can be made to give way to all others: only Linux is asked for it".to_owned())
}

/// Asks for a real-time priority (`SCHED_FIFO`) for the calling thread.
///
/// # Errors
/// Says what permission is missing.
#[cfg(target_os = "linux")]
pub(crate) fn be_urgent(priority: u8) -> Result<(), String> {
    use thread_priority::{
        RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let value = ThreadPriorityValue::try_from(priority)?;
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(value), policy)
        .map_err(|problem| format!("no real-time priority ({problem}); needs CAP_SYS_NICE or a limit `rtprio`"))
}

/// Asks for a real-time priority for the calling thread.
///
/// # Errors
/// On this system there is none to ask for.
#[cfg(not(target_os = "linux"))]
pub(crate) fn be_urgent(_priority: u8) -> Result<(), String> {
    Err("no real-time priority: only Linux is asked for one".to_owned())
}
