//! What one decision of each policy costs, as CSV: on `video-conference`, with 64 live jobs, and on a mix of what makes deciding dear: a
//! shared bus, variants, batches, and memory that is short. A policy that is asked to make room decides, too.
//!
//! `cargo run --release -p onbeat-sim --example decisions` prints all policies; names after `--` choose among them.
//!
//! Runs are deterministic: decision number i is the same in every repetition of a run. It is timed in each, and the least time
//! counts, so that what else the machine does stays out of the figures. The clock's own cost is taken off.

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a program that times and prints")]

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use onbeat_core::event::NoSink;
use onbeat_core::policy::{Actions, Policy, Shortage, View};
use onbeat_core::spec::{Library, NoFiles, Options};
use onbeat_core::system::System;
use onbeat_sim::simulate;

/// How often each run is repeated.
const REPETITIONS: usize = 5;

/// Live jobs around 64: decisions in other states of the second workload do not count.
const LIVE: RangeInclusive<usize> = 60..=68;

/// Calls to the allocator so far.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct Counting;

// SAFETY: every call is handed on unchanged to the system's allocator; counting touches nothing else.
#[expect(unsafe_code, reason = "counting allocations takes an allocator, and its trait is unsafe")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from the system's allocator, by `alloc` above.
        unsafe { Heap.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the memory came from the system's allocator, by `alloc` above.
        unsafe { Heap.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// One decision that counts.
#[derive(Clone, Copy, Debug)]
struct Sample {
    ns: u64,
    allocations: u64,
}

/// A policy whose decisions are timed.
#[derive(Clone, Debug)]
struct Timed {
    inner: Box<dyn Policy>,
    live: RangeInclusive<usize>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Policy for Timed {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.time(view, |inner| inner.decide(view, actions));
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        self.time(view, |inner| inner.out_of_memory(view, shortage, actions));
    }
}

impl Timed {
    fn time(&mut self, view: &View<'_>, asked: impl FnOnce(&mut dyn Policy)) {
        let allocations = ALLOCATIONS.load(Ordering::Relaxed);
        let start = Instant::now();
        asked(&mut *self.inner);
        let ns = start.elapsed().as_nanos() as u64;
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
        if self.live.contains(&view.state.jobs.len()) {
            self.samples.lock().expect("nobody panicked with the lock").push(Sample { ns, allocations });
        }
    }
}

/// 128 jobs are released together once a second: 104 frames of eight models and 24 short language model requests, on three processors
/// of different speed that are about 80% loaded. While they are worked off, the number of live jobs passes 64; at that time most of
/// those left can still be on time.
fn bursts() -> System {
    let mut toml = "name = \"bursts\"\nduration_s = 60\n[platform]\nname = \"p\"\n[platform.memory]\n".to_owned();
    let mut put = |text: std::fmt::Arguments<'_>| toml.write_fmt(text).expect("writing to a string succeeds");
    for (name, preemption) in [("cpu", "anytime"), ("gpu", "segment"), ("npu", "segment")] {
        put(format_args!(
            "[[platform.processor]]\nname = \"{name}\"\nkind = \"{name}\"\npreemption = \"{preemption}\"\n"
        ));
    }
    for m in 0..8 {
        put(format_args!("[model.m{m}]\n"));
        for (processor, factor) in [("cpu", 4), ("gpu", 2), ("npu", 1)] {
            let latency = (4 + 2 * m) * factor;
            put(format_args!("[[cost]]\nmodel = \"m{m}\"\nprocessor = \"{processor}\"\nlatency_ms = {latency}\n"));
        }
    }
    put(format_args!("[model.llm]\nshape = \"autoregressive\"\n"));
    for (processor, factor) in [("gpu", 2), ("npu", 1)] {
        put(format_args!(
            "[[cost]]\nmodel = \"llm\"\nprocessor = \"{processor}\"\nprefill_ms = [[64, {}]]\ndecode_ms = [[0, {factor}]]\n",
            4 * factor
        ));
    }
    for i in 0..104 {
        let (model, deadline) = (i % 8, 500 + 5 * i);
        put(format_args!(
            "[[stream]]\nname = \"s{i}\"\nmodel = \"m{model}\"\nperiod_ms = 1000\ndeadline_ms = {deadline}\n"
        ));
    }
    for i in 0..24 {
        put(format_args!(
            "[[session]]\nname = \"c{i}\"\nmodel = \"llm\"\narrival = {{ process = \"periodic\", period_s = 1 }}\n\
             prompt = 64\noutput = 6\nttft_ms = 800\ntpot_ms = 50\n"
        ));
    }
    System::from_toml(&toml).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Six streams, half of them with a lighter variant, and four chats that share decode steps, on three processors with one bus. Models and
/// caches, which grow by blocks, want about half as much memory again as there is.
fn mixed() -> System {
    let mut toml =
        "name = \"mixed\"\nduration_s = 20\n[platform]\nname = \"p\"\n[platform.memory]\nbandwidth_gbps = 40\n\
                    load_gbps = 10\ncapacity_gb = 0.85\nkv_block_tokens = 16\n"
            .to_owned();
    let mut put = |text: std::fmt::Arguments<'_>| toml.write_fmt(text).expect("writing to a string succeeds");
    for (name, preemption) in [("cpu", "anytime"), ("gpu", "segment"), ("npu", "segment")] {
        put(format_args!(
            "[[platform.processor]]\nname = \"{name}\"\nkind = \"{name}\"\npreemption = \"{preemption}\"\n\
             bandwidth_gbps = 30\n"
        ));
    }
    let quality = |value| format!("quality = {{ metric = \"m\", value = {value}, higher_is_better = true }}\n");
    for m in 0..6 {
        put(format_args!("[model.m{m}]\nweights_mb = 30\n"));
        if m % 2 == 0 {
            put(format_args!("{}[model.m{m}.variant.light]\nweights_mb = 10\n{}", quality(2), quality(1)));
        }
        for (processor, factor) in [("cpu", 4), ("gpu", 2), ("npu", 1)] {
            let latency = (4 + 2 * m) * factor;
            let entry = |variant: &str, latency: u32| {
                format!(
                    "[[cost]]\nmodel = \"m{m}\"\n{variant}processor = \"{processor}\"\nlatency_ms = {latency}\n\
                     segments = 4\nbytes_mb = {}\n",
                    10 * latency
                )
            };
            put(format_args!("{}", entry("", latency)));
            if m % 2 == 0 {
                put(format_args!("{}", entry("variant = \"light\"\n", latency / 2)));
            }
        }
        let any = if m % 2 == 0 { ", variants = \"any\"" } else { "" };
        put(format_args!(
            "[chain.c{m}]\nstage = [{{ name = \"s\", model = \"m{m}\"{any} }}]\n\
             [[stream]]\nname = \"s{m}\"\nchain = \"c{m}\"\nperiod_ms = {0}\ndeadline_ms = {0}\n",
            60 + 10 * m
        ));
    }
    put(format_args!(
        "[model.llm]\nshape = \"autoregressive\"\nweights_mb = 400\nkv_kb_per_token = 500\n\
         [[cost]]\nmodel = \"llm\"\nprocessor = \"gpu\"\nprefill_ms = [[64, 20]]\ndecode_ms = [[0, 8]]\n\
         batch_factor = [[1, 1.0], [8, 1.6]]\n"
    ));
    for i in 0..4 {
        put(format_args!(
            "[[session]]\nname = \"c{i}\"\nmodel = \"llm\"\narrival = {{ process = \"poisson\", rate_per_s = 0.8 }}\n\
             prompt = {{ kind = \"uniform\", low = 32, high = 128 }}\noutput = {{ kind = \"uniform\", low = 8, high = 64 }}\n\
             ttft_ms = 800\ntpot_ms = 50\n"
        ));
    }
    System::from_toml(&toml).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Every decision that counts, at its least time over all repetitions.
fn measure(system: &System, policy: &str, live: &RangeInclusive<usize>) -> Vec<Sample> {
    let mut least: Vec<Sample> = Vec::new();
    for repetition in 0..REPETITIONS {
        let inner = onbeat_policy::make(policy, system).unwrap_or_else(|error| panic!("{error}"));
        let samples = Arc::new(Mutex::new(Vec::with_capacity(1 << 16)));
        let timed = Timed { inner, live: live.clone(), samples: Arc::clone(&samples) };
        simulate(system, Box::new(timed), policy, 1, NoSink).unwrap_or_else(|error| panic!("{error}"));
        let samples = std::mem::take(&mut *samples.lock().expect("nobody panicked with the lock"));
        if repetition == 0 {
            least = samples;
            continue;
        }
        assert_eq!(least.len(), samples.len(), "{policy}: two runs with the same seed differ");
        for (least, sample) in least.iter_mut().zip(samples) {
            least.ns = least.ns.min(sample.ns);
        }
    }
    least
}

/// What two readings of the clock in a row cost [ns].
fn clock_ns() -> u64 {
    let once = || {
        let start = Instant::now();
        start.elapsed().as_nanos() as u64
    };
    (0..10_000).map(|_| once()).min().expect("there are readings")
}

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let (options, disk) = (Options::default(), NoFiles);
    let conference = Library::shipped()
        .resolve("video-conference", Some("snapdragon-x-elite"), &options, &disk)
        .unwrap_or_else(|errors| panic!("{errors}"));
    let all = 0..=usize::MAX;
    let workloads =
        [("video-conference", conference, all.clone()), ("64-live-jobs", bursts(), LIVE), ("mixed", mixed(), all)];
    let clock = clock_ns();
    println!("policy,workload,decisions,mean_ns,p50_ns,p99_ns,max_ns,allocations_per_decision");
    for info in
        onbeat_policy::all().iter().filter(|info| chosen.is_empty() || chosen.iter().any(|name| name == info.name))
    {
        for (name, system, live) in &workloads {
            let samples = measure(system, info.name, live);
            if samples.is_empty() {
                // A policy that never meets such a state has no line.
                continue;
            }
            let mut ns: Vec<u64> = samples.iter().map(|sample| sample.ns.saturating_sub(clock)).collect();
            ns.sort_unstable();
            let at = |quantile: f64| ns[((ns.len() - 1) as f64 * quantile).round() as usize];
            let mean = ns.iter().sum::<u64>() as f64 / ns.len() as f64;
            // Buffers grow in the first half of a run; the second half is the steady state.
            let steady = &samples[samples.len() / 2..];
            let allocations = steady.iter().map(|sample| sample.allocations).sum::<u64>() as f64 / steady.len() as f64;
            let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
            println!("{},{name},{},{mean:.0},{p50},{p99},{max},{allocations:.3}", info.name, ns.len());
        }
    }
}
