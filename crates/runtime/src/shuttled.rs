//! The protocol between dispatcher and slots under every interleaving that a random scheduler finds: the code of the slots' threads,
//! compiled again with instrumented channels, locks and atomics (the crate `shuttle`).

#![allow(dead_code, reason = "a second copy of code of which only the slots' side is tested")]

mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
    pub(crate) use shuttle::sync::mpsc::{Receiver, Sender, TryRecvError};
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
    pub(crate) use shuttle::thread::yield_now;
}
#[path = "rehearse.rs"]
mod rehearse;
#[path = "worker.rs"]
mod worker;

use std::time::Instant;

use onbeat_backend::{Control, Data, Error, Footprint, Model, Output, Session, Step};
use onbeat_core::cost::Phase;
use onbeat_core::id::{Id, ModelId, NodeId, ProcessorId, StageId};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use shuttle::sync::mpsc;

use self::sync::{Arc, AtomicU32, AtomicU64, Ordering};
use self::worker::{Message, Models, Order, RunOrder, Shared, Worker};
use crate::desk::system;
use crate::library::Library;
use crate::task::{Launch, Member};

/// Steps of an inference; each hands on a part.
const STEPS: u32 = 3;
const RUNS: u64 = 3;

#[derive(Debug, Default)]
struct Shelf {
    loads: Arc<AtomicU32>,
}

impl Library for Shelf {
    fn load(&self, _: ModelId, _: ProcessorId, _: &Control) -> Result<Arc<dyn Model>, Error> {
        // Load and store apart: two at once would be seen.
        let before = self.loads.load(Ordering::SeqCst);
        self.loads.store(before + 1, Ordering::SeqCst);
        Ok(Arc::new(Counting))
    }
}

#[derive(Debug)]
struct Counting;

impl Model for Counting {
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }
    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(Count(0)))
    }
}

#[derive(Debug)]
struct Count(u32);

impl Session for Count {
    fn begin(&mut self, _: &[Data]) -> Result<(), Error> {
        self.0 = 0;
        Ok(())
    }
    fn step(&mut self, _: u32, _: &Control) -> Result<Step, Error> {
        self.0 += 1;
        Ok(Step { units: 1, done: self.0 == STEPS, parts: vec![Data::Text(self.0.to_string().into())] })
    }
    fn finish(&mut self) -> Result<Output, Error> {
        Ok(Output::default())
    }
}

/// A slot of the first processor, with both ends of its channels.
fn slot(
    system: &Arc<System>,
    shelf: &Arc<Shelf>,
    models: &Arc<Models>,
) -> (Worker, mpsc::Sender<Order>, mpsc::Receiver<Message>) {
    let (orders, theirs) = mpsc::channel();
    let (to_us, messages) = mpsc::channel();
    let worker = Worker {
        system: Arc::clone(system),
        processor: ProcessorId::new(0),
        library: Arc::clone(shelf) as Arc<dyn Library>,
        models: Arc::clone(models),
        orders: theirs,
        messages: to_us,
    };
    (worker, orders, messages)
}

fn order(system: &System, run: u64) -> (Order, Arc<Shared>) {
    let node = NodeId::new(0);
    let member = Member {
        stage: StageId::new(0),
        serial: run,
        job: run,
        node,
        variant: 0,
        units: 0,
        far: false,
        instance: 0,
        fresh: true,
        from: 0.0,
        work: system.nodes[node].expected,
        u: 0.5,
        variation: 1.0,
    };
    let launch = Launch {
        run,
        processor: ProcessorId::new(0),
        slot: 0,
        model: system.nodes[node].model,
        phase: Phase::Forward,
        phase_index: 0,
        members: vec![member],
        loads: false,
        setup: Nanos::ZERO,
        steps_max: None,
        stretch: 1.0,
        units_per_step: 1,
        piece: false,
        tells: false,
        joint: None,
    };
    let shared = Arc::new(Shared { stretch: AtomicU64::new(1.0_f64.to_bits()), ..Shared::default() });
    let order =
        RunOrder { launch, shared: Arc::clone(&shared), members: vec![(None, Vec::new())], given: Instant::now() };
    (Order::Run(Box::new(order)), shared)
}

/// What has been heard of one run.
#[derive(Default)]
struct Heard {
    parts: u32,
    ended: Option<(u32, bool)>,
}

fn hear(heard: &mut Heard, message: Message) {
    match message {
        Message::Part { data, .. } => {
            assert!(heard.ended.is_none(), "a part came after the end of its run");
            heard.parts += data.len() as u32;
        }
        Message::Ran { ended, .. } => {
            assert!(heard.ended.replace((ended.steps, ended.finished)).is_none(), "a run ended twice");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_sees_a_step_finds_its_part_and_every_run_ends_once_however_it_is_cut() {
    let system = Arc::new(system("assistant", "xeon-2-core", 2.0));
    shuttle::check_random(
        move || {
            let (worker, orders, messages) = slot(&system, &Arc::default(), &Arc::default());
            let thread = shuttle::thread::spawn(move || worker.work());
            for run in 0..RUNS {
                let (order, shared) = order(&system, run);
                orders.send(order).unwrap();
                let mut heard = Heard::default();
                // As the dispatcher does: first how far the run is, then what has come in.
                loop {
                    let steps = shared.steps.load(Ordering::Acquire);
                    while let Ok(message) = messages.try_recv() {
                        hear(&mut heard, message);
                    }
                    assert!(heard.parts >= steps, "{steps} steps were seen, and {} parts", heard.parts);
                    if let Some((steps, finished)) = heard.ended {
                        assert_eq!(heard.parts, steps, "every step hands a part on, before the end of the run is told");
                        assert!(steps >= 1 && finished == (steps == STEPS), "{steps} steps, finished: {finished}");
                        assert!(run > 0 || finished, "a run that nobody cut ended early");
                        break;
                    }
                    if run > 0 && steps > 0 {
                        shared.cut.store(true, Ordering::Release);
                    }
                    shuttle::thread::yield_now();
                }
            }
            drop(orders);
            thread.join().unwrap();
            assert!(messages.try_recv().is_err(), "something was told after the end");
        },
        300,
    );
}

#[test]
fn two_slots_that_need_a_model_at_once_load_it_once() {
    let system = Arc::new(system("assistant", "xeon-2-core", 2.0));
    shuttle::check_random(
        move || {
            let (shelf, models) = (Arc::new(Shelf::default()), Arc::default());
            let slots = [slot(&system, &shelf, &models), slot(&system, &shelf, &models)];
            let mut threads = Vec::new();
            for (run, (worker, orders, messages)) in slots.into_iter().enumerate() {
                let (order, _) = order(&system, run as u64);
                orders.send(order).unwrap();
                threads.push((shuttle::thread::spawn(move || worker.work()), messages));
            }
            for (thread, messages) in threads {
                thread.join().unwrap();
                let ends = messages.iter().filter(|message| matches!(message, Message::Ran { .. })).count();
                assert_eq!(ends, 1);
            }
            assert_eq!(shelf.loads.load(Ordering::SeqCst), 1);
        },
        300,
    );
}
