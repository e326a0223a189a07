//! Where `rten` computes.
//!
//! `rten` 0.27 runs every graph inside a rayon pool of its own making (`rten::ThreadPool`), and rayon runs what is "installed" in a
//! pool on one of the pool's threads. It takes no pool that rayon's `use_current_thread` made, so a thread becomes a place to compute
//! only by being a pool's thread from the start. Installing from such a thread runs directly: rayon compares two pointers and calls.

use std::cell::RefCell;
use std::sync::Arc;

use onbeat_backend::Error;
use rten::ThreadPool;

/// Where a graph computes.
#[derive(Clone, Debug)]
pub(crate) enum Threads {
    /// On the thread that calls, or its helper.
    Caller,
    /// On the threads of its own pool.
    Own(Arc<ThreadPool>),
}

impl Threads {
    /// A place with so many threads. Those of a pool of its own are pinned to the cores, in turn.
    pub(crate) fn new(threads: usize, cores: &[usize]) -> Result<Self, Error> {
        if threads == 0 {
            return Err(Error::invalid_input("a graph needs at least 1 thread, not 0"));
        }
        affinity::check(cores)?;
        if threads == 1 {
            return Ok(Self::Caller);
        }
        let pool = ThreadPool::with_num_threads(threads);
        // Threads start on the cores of the thread that makes them, which may be pinned itself. So the others must be freed.
        pool.run(|| {
            rayon::broadcast(|thread| match cores {
                [] => affinity::set(&affinity::of_process()),
                // With more cores than threads, the system chooses among them.
                _ if cores.len() > threads => affinity::set(cores),
                _ => affinity::set(&[cores[thread.index() % cores.len()]]),
            });
        });
        Ok(Self::Own(Arc::new(pool)))
    }

    /// The pool that computes now, for the thread that calls.
    pub(crate) fn pool(&self) -> Arc<ThreadPool> {
        match self {
            Self::Caller => own_pool(),
            Self::Own(pool) => Arc::clone(pool),
        }
    }
}

/// The pool of a thread that calls: one whose only thread it is, or that of its helper.
struct OwnPool {
    pool: Arc<ThreadPool>,
    /// Cores that the helper may use; `None` if there is no helper.
    cores: Option<Vec<usize>>,
}

thread_local! {
    static OWN: RefCell<Option<OwnPool>> = const { RefCell::new(None) };
}

/// Runs `f` on a new thread on which graphs that were loaded with one thread compute themselves, without a helper. The thread that calls
/// waits. The new thread starts with the cores and the scheduling class of the one that calls; `f` may change both.
///
/// For the loop of a processor: everything that it runs then stays on one thread, and calling a graph costs no switch of threads.
///
/// # Panics
/// If `f` does.
pub fn compute_here<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    /// Lets go of the pool even if `f` panics: a thread that owns its own pool would never end.
    struct Forget(Option<OwnPool>);
    impl Drop for Forget {
        fn drop(&mut self) {
            OWN.with(|own| *own.borrow_mut() = self.0.take());
        }
    }

    let pool = Arc::new(ThreadPool::with_num_threads(1));
    let inner = Arc::clone(&pool);
    pool.run(move || {
        let before = OWN.with(|own| own.replace(Some(OwnPool { pool: inner, cores: None })));
        let _forget = Forget(before);
        f()
    })
}

fn own_pool() -> Arc<ThreadPool> {
    OWN.with(|own| {
        let mut own = own.borrow_mut();
        let own = own.get_or_insert_with(|| OwnPool {
            pool: Arc::new(ThreadPool::with_num_threads(1)),
            cores: Some(affinity::current()),
        });
        if let Some(cores) = &mut own.cores {
            // A helper starts on the caller's cores and with its scheduling class. The caller may have moved since.
            let now = affinity::current();
            if *cores != now {
                own.pool.run(|| affinity::set(&now));
                *cores = now;
            }
        }
        Arc::clone(&own.pool)
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod affinity {
    use onbeat_backend::Error;
    use rustix::process::getpid;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    fn list(set: &CpuSet) -> Vec<usize> {
        (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
    }

    /// Cores that the calling thread may use; empty if unknown.
    pub(super) fn current() -> Vec<usize> {
        sched_getaffinity(None).map(|set| list(&set)).unwrap_or_default()
    }

    /// Cores that the process's first thread may use; empty if unknown.
    pub(super) fn of_process() -> Vec<usize> {
        sched_getaffinity(Some(getpid())).map(|set| list(&set)).unwrap_or_default()
    }

    /// Pins the calling thread, if it may be.
    pub(super) fn set(cores: &[usize]) {
        let mut set = CpuSet::new();
        for &core in cores {
            set.set(core);
        }
        if !cores.is_empty() {
            let _ = sched_setaffinity(None, &set);
        }
    }

    /// Whether the machine can have cores of these numbers.
    pub(super) fn check(cores: &[usize]) -> Result<(), Error> {
        let limit = CpuSet::MAX_CPU;
        match cores.iter().find(|&&core| core >= limit) {
            Some(core) => Err(Error::invalid_input(format!("there is no core {core}; cores are 0 to {}", limit - 1))),
            None => Ok(()),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod affinity {
    //! Systems on which threads are not pinned.

    use onbeat_backend::Error;

    pub(super) fn current() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn of_process() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn set(_: &[usize]) {}

    #[expect(clippy::unnecessary_wraps, reason = "where threads can be pinned, it can fail")]
    pub(super) fn check(_: &[usize]) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn inside_compute_here_a_graph_computes_on_the_thread_that_calls() {
        compute_here(|| {
            let here = thread::current().id();
            assert_eq!(Threads::Caller.pool().run(|| thread::current().id()), here);
        });
        let here = thread::current().id();
        assert_ne!(Threads::Caller.pool().run(|| thread::current().id()), here);
    }

    #[test]
    fn compute_here_can_be_nested_and_leaves_nothing_behind() {
        let ids = compute_here(|| {
            let outer = thread::current().id();
            let inner = compute_here(|| Threads::Caller.pool().run(|| thread::current().id()));
            (outer, inner, Threads::Caller.pool().run(|| thread::current().id()))
        });
        assert_ne!(ids.0, ids.1);
        assert_eq!(ids.0, ids.2);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn helpers_follow_their_callers_and_pools_go_where_they_are_told() {
        let allowed = affinity::current();
        thread::spawn(move || {
            for core in allowed {
                affinity::set(&[core]);
                assert_eq!(Threads::Caller.pool().run(affinity::current), [core]);
                // Made by a pinned thread, but free.
                let free = Threads::new(2, &[]).unwrap();
                assert_eq!(free.pool().run(affinity::current), affinity::of_process());
                let pinned = Threads::new(2, &[core]).unwrap();
                assert_eq!(pinned.pool().run(|| rayon::broadcast(|_| affinity::current())), [[core], [core]]);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn impossible_numbers_are_errors() {
        assert!(Threads::new(0, &[]).is_err());
        #[cfg(target_os = "linux")]
        assert!(Threads::new(2, &[1_000_000]).is_err());
    }
}
