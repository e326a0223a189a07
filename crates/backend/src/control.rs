//! Cancelling what another thread is doing.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Cancels work that another thread does. Clones refer to the same work.
#[derive(Clone, Debug, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    next_hook: AtomicU64,
    hooks: Mutex<Vec<(u64, Hook)>>,
}

type Hook = Box<dyn Fn() + Send + Sync>;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

impl Control {
    /// Work that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the work. Work that is running ends as soon as its device can, with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Release);
        for (_, hook) in self.shared.hooks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            hook();
        }
    }

    /// Whether the work was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Acquire)
    }

    /// Calls `hook` when the work is cancelled – at once if it was already – until the returned guard is dropped. For libraries that
    /// are told to stop by a call of their own. The hook must not block.
    pub fn on_cancel(&self, hook: impl Fn() + Send + Sync + 'static) -> CancelHook {
        let id = self.shared.next_hook.fetch_add(1, Ordering::Relaxed);
        let mut hooks = self.shared.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cancelled() {
            hook();
        }
        hooks.push((id, Box::new(hook)));
        CancelHook { shared: Arc::clone(&self.shared), id }
    }
}

/// Keeps a hook of [`Control::on_cancel`] in place.
#[derive(Debug)]
pub struct CancelHook {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for CancelHook {
    fn drop(&mut self) {
        self.shared.hooks.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_called_once_cancelled_and_not_after_they_are_dropped() {
        let control = Control::new();
        let calls = Arc::new(AtomicU64::new(0));
        let count = |calls: &Arc<AtomicU64>| {
            let calls = Arc::clone(calls);
            move || {
                calls.fetch_add(1, Ordering::Relaxed);
            }
        };
        drop(control.on_cancel(count(&calls)));
        let kept = control.on_cancel(count(&calls));
        assert!(!control.is_cancelled());
        control.cancel();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let late = control.on_cancel(count(&calls));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        drop((kept, late));
    }
}
