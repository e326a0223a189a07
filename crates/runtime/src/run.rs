//! The dispatcher: real time around the state machine. One thread keeps the schedule; it never waits for a device.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use onbeat_backend::Control;
use onbeat_core::event::{Sink, What};
use onbeat_core::id::{ModelId, NodeId, ProcessorId, SourceId};
use onbeat_core::system::{Node, System};
use onbeat_core::units::Nanos;

use crate::library::{Feed, Keep, Product, Trouble};
use crate::live::Live;
use crate::plan::{Finished, Options, Plan, RunError};
use crate::store::{Store, Tap, is_streaming};
use crate::task::{Command, Launch, Member, Report};
use crate::threads;
use crate::worker::{Ended, Left, Message, Models, Order, RunOrder, Shared, Worker};

/// How often the stop flag is looked at.
const LOOK_AT_STOP: Duration = Duration::from_millis(50);
/// A dispatcher that did not come to look for so long was itself held up – the process was stopped, the machine was asleep – and
/// gives devices time to answer before it counts any of them as lost.
const HELD_UP: Nanos = Nanos(1_000_000_000);

/// Runs a scenario in real time to its end, and returns what it came to, the sink, and what keeps the outputs.
///
/// # Errors
/// [`RunError`]. What was recorded until then remains readable.
pub fn run<S: Sink + Debug, K: Keep>(plan: Plan, sink: S, keep: K) -> Result<(Finished, S, K), RunError> {
    let (to_us, messages) = unbounded();
    let models = Arc::new(Models::default());
    let system = Arc::clone(&plan.system);
    if let Some(stage) = exits_of_whole_networks(&system) {
        return Err(RunError::Exits { stage });
    }
    if let Some((stream, processor)) = content_of_real_inputs(&system) {
        return Err(RunError::Content { stream, processor });
    }
    let mut slots = BTreeMap::new();
    let mut threads = Vec::new();
    for (p, unit) in system.platform.processors.enumerate() {
        for slot in 0..unit.runs_max() {
            let (orders, theirs) = bounded(64);
            let worker = Worker {
                system: Arc::clone(&system),
                processor: p,
                library: Arc::clone(&plan.library),
                models: Arc::clone(&models),
                orders: theirs,
                messages: to_us.clone(),
            };
            let cores = unit.device.as_ref().map(|device| device.cores.clone()).unwrap_or_default();
            let name = format!("{}.{slot}", unit.name);
            let thread = Builder::new()
                .name(name)
                .spawn(move || {
                    // A core that is not there was reported when the platform was resolved against the machine.
                    let _ = crate::threads::pin(&cores);
                    let library = Arc::clone(&worker.library);
                    library.host(p, Box::new(|| worker.work()));
                })
                .map_err(RunError::Thread)?;
            threads.push((p, thread));
            slots.insert((p, slot), orders);
        }
    }
    let tap = Tap { jobs: Vec::new(), sink };
    let live = Live::new(&system, plan.policy, &plan.policy_name, plan.seed, plan.facts, tap);
    let (bin, waste) = unbounded::<Waste>();
    // Freeing weights and caches can take long; the schedule does not wait for it.
    let unload = Builder::new()
        .name("unload".to_owned())
        .spawn(move || {
            while let Ok(waste) = waste.recv() {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(waste)));
            }
        })
        .map_err(RunError::Thread)?;
    let mut dispatcher = Dispatcher {
        system: &system,
        live,
        keep,
        feed: Arc::clone(&plan.feed),
        options: plan.options,
        models,
        slots,
        messages,
        bin,
        store: Store::default(),
        underway: BTreeMap::new(),
        lost: BTreeSet::new(),
        looked: Nanos::ZERO,
        trusting_until: Nanos::ZERO,
        products: Vec::new(),
        reports: Vec::new(),
        commands: Vec::new(),
        epoch: Instant::now(),
        last: Nanos::ZERO,
        finished: Finished::default(),
    };
    dispatcher.preload()?;
    dispatcher.prepare_thread();
    let ended = dispatcher.drive();
    dispatcher.drain();
    let Dispatcher { live, keep, mut finished, slots, underway, mut lost, bin, .. } = dispatcher;
    lost.extend(underway.values().map(|run| run.launch.processor));
    drop((slots, bin));
    join(threads, &lost);
    if lost.is_empty() {
        let _ = unload.join();
    }
    ended?;
    finished.outcome = live.outcome();
    Ok((finished, live.into_sink().sink, keep))
}

/// Something to be freed.
type Waste = Box<dyn Send>;

/// A stage whose model states early exits, if it could run on a real processor: nothing tells there when the answer is sure.
fn exits_of_whole_networks(system: &System) -> Option<String> {
    let mut real = system.platform.processors.enumerate().filter(|(_, unit)| unit.runs_models()).map(|(p, _)| p);
    let on = |p: ProcessorId| system.nodes.iter().find(|node| node.has_exits() && node.costs_on(p).next().is_some());
    real.find_map(|p| Some(on(p)?.name.clone()))
}

/// A stream that says what it looks at, and a real processor that could run a stage of it: what its real inputs show is not known.
fn content_of_real_inputs(system: &System) -> Option<(String, String)> {
    let real = |p: &ProcessorId| system.platform.processors[*p].runs_models();
    let on = |id: SourceId| {
        let mut processors = system.nodes_of(id).flat_map(|node| {
            system.platform.processors.ids().filter(move |&p| system.nodes[node].costs_on(p).next().is_some())
        });
        processors.find(real)
    };
    let mut streams = system.sources.enumerate().filter(|(_, source)| source.content.is_some());
    let (name, p) = streams.find_map(|(id, source)| Some((source.name.clone(), on(id)?)))?;
    Some((name, system.platform.processors[p].name.clone()))
}

/// Waits for the slots' threads to end, which have nothing left to do, so that none is in a library while the program ends. Those of a
/// processor that does not answer are left behind.
fn join(threads: Vec<(ProcessorId, JoinHandle<()>)>, lost: &BTreeSet<ProcessorId>) {
    for (_, thread) in threads.into_iter().filter(|(p, _)| !lost.contains(p)) {
        let _ = thread.join();
    }
}

/// Something that a slot was told to run.
#[derive(Debug)]
struct Underway {
    launch: Launch,
    shared: Arc<Shared>,
    /// Steps that it was known to have done before the messages were read last.
    seen_steps: u32,
    told_steps: u32,
}

struct Dispatcher<'a, S, K> {
    system: &'a System,
    live: Live<'a, Tap<S>>,
    keep: K,
    feed: Arc<dyn Feed>,
    options: Options,
    models: Arc<Models>,
    slots: BTreeMap<(ProcessorId, u32), Sender<Order>>,
    messages: Receiver<Message>,
    bin: Sender<Waste>,
    store: Store,
    /// Runs that a slot has not answered for yet. What comes from any other run is too late: its processor counts as lost.
    underway: BTreeMap<u64, Underway>,
    lost: BTreeSet<ProcessorId>,
    /// When it looked for hangs last.
    looked: Nanos,
    /// No device counts as hanging before this.
    trusting_until: Nanos,
    /// What stages have produced, until the state machine knows that they have ended: what counts as unfinished has no product.
    products: Vec<Product>,
    reports: Vec<Report>,
    commands: Vec<Command>,
    epoch: Instant,
    last: Nanos,
    finished: Finished,
}

impl<S: Sink + Debug, K: Keep> Dispatcher<'_, S, K> {
    /// Loads what is in memory at the start, before time begins.
    fn preload(&mut self) -> Result<(), RunError> {
        let mut resident = self.live.resident_now();
        // Adapters are rehearsed: devices are told of models only.
        resident.retain(|&(model, _)| self.system.models[model].role.is_network());
        for (model, processor) in resident.iter().flat_map(|&(weights, p)| networks(self.system, weights, p)) {
            let control = Control::new();
            let _ = self.slots[&(processor, 0)].send(Order::Load(model, control.clone()));
            // One after the other: two loads at once would need the memory of both their files.
            let mut patience = None;
            let loaded = loop {
                match self.messages.recv_timeout(LOOK_AT_STOP) {
                    Ok(Message::Loaded(loaded)) => break loaded,
                    Err(RecvTimeoutError::Timeout) if self.is_stopped() => {
                        let until = *patience.get_or_insert_with(|| Instant::now() + self.options.hang_floor);
                        control.cancel();
                        if Instant::now() >= until {
                            self.lost.insert(processor);
                            return Ok(());
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => unreachable!("nothing else was ordered yet, and the threads outlive the orders"),
                }
            };
            if self.is_stopped() {
                return Ok(());
            }
            if let Err(error) = loaded {
                let model = self.system.models[model].name.clone();
                let processor = self.system.platform.processors[processor].name.clone();
                return Err(RunError::Load { model, processor, error });
            }
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed)
    }

    /// Has something freed by another thread.
    fn discard(&self, waste: impl Send + 'static) {
        let _ = self.bin.send(Box::new(waste));
    }

    fn prepare_thread(&mut self) {
        let options = self.options.clone();
        if let Err(note) = threads::pin(&options.dispatcher_cores) {
            self.finished.notes.push(format!("dispatcher: {note}"));
        }
        if options.urgent
            && let Err(note) = threads::be_urgent(50)
        {
            self.finished.notes.push(format!("dispatcher: {note}"));
        }
    }

    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Goes through real time until the end.
    fn drive(&mut self) -> Result<(), RunError> {
        self.epoch = Instant::now();
        let duration = self.system.duration;
        let mut at = Nanos::ZERO;
        let mut first = true;
        loop {
            if at >= duration || self.is_stopped() {
                break;
            }
            if first || !self.reports.is_empty() || self.live.next_timer() <= at {
                first = false;
                let timer = self.live.next_timer();
                if timer <= at {
                    self.finished.lateness.record((at - timer).0);
                }
                self.tell_progress();
                self.last = at;
                let reports = std::mem::take(&mut self.reports);
                let mut commands = std::mem::take(&mut self.commands);
                self.live.instant(at, &reports, &mut commands)?;
                for product in self.products.drain(..) {
                    self.keep.product(product);
                }
                self.follow_jobs();
                for command in commands.drain(..) {
                    self.carry_out(command);
                }
                self.commands = commands;
                self.reports = reports;
                self.reports.clear();
                self.finished.instants.record(self.now().0.saturating_sub(at.0));
            }
            let wake = self.live.next_timer().min(duration).min(self.next_hang());
            let wake = wake.min(self.now().saturating_add(Nanos::from_ns_f64(LOOK_AT_STOP.as_nanos() as f64)));
            let first_message = match self.messages.recv_deadline(self.epoch + Duration::from_nanos(wake.0)) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("the dispatcher keeps a sender alive in its workers")
                }
            };
            // Before the messages: the parts of these steps are among them, and go first.
            for underway in self.underway.values_mut() {
                underway.seen_steps = underway.shared.steps.load(Ordering::Acquire);
            }
            if let Some(message) = first_message {
                self.take(message);
            }
            while let Ok(message) = self.messages.try_recv() {
                self.take(message);
            }
            at = self.now().max(Nanos(self.last.0 + 1));
            self.look_for_hangs(at);
        }
        let end = at.min(duration).max(self.last);
        self.live.end(end);
        self.finished.ended = end;
        Ok(())
    }

    /// Waits for what is still running, up to the time after which it counts as hanging.
    fn drain(&mut self) {
        for run in self.underway.values() {
            run.shared.cut.store(true, Ordering::Release);
            run.shared.control.cancel();
        }
        let until = Instant::now() + self.options.hang_floor;
        while !self.underway.is_empty() {
            match self.messages.recv_deadline(until) {
                Ok(Message::Ran { run, .. } | Message::Failed { run, .. }) => {
                    self.underway.remove(&run);
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }

    /// Says how far runs are, where that is known to have changed: policies see it.
    fn tell_progress(&mut self) {
        for (&run, underway) in &mut self.underway {
            let steps = underway.seen_steps;
            if steps != underway.told_steps {
                underway.told_steps = steps;
                self.reports.push(Report::Progress { run, steps });
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Report(run, report) if self.underway.contains_key(&run) => self.reports.push(report),
            Message::Part { run, job, node, stage, tokens, data } if self.underway.contains_key(&run) => {
                for part in data {
                    self.store.add_part(job, node, part);
                    self.reports.push(Report::Part { stage, tokens });
                }
            }
            Message::Ran { run, ended } if self.underway.remove(&run).is_some() => {
                let Ended { steps, finished, left } = ended;
                let several = left.len() > 1;
                for Left { member: Member { job, serial, node, instance, .. }, seat, output } in left {
                    let finished = output.is_some();
                    if let Some((data, reports)) = output {
                        if several {
                            self.reports.push(Report::Ended { run, stage: serial });
                        }
                        self.reports.extend(reports);
                        if let Some(source) = self.store.source_of(job) {
                            let at = self.now();
                            self.products.push(Product { at, source, job, node, instance, data: data.clone() });
                        }
                        self.store.set_output(job, node, instance, data);
                    }
                    let streaming = is_streaming(self.system, node);
                    if let Some(old) = self.store.keep_seat(job, serial, node, streaming, finished, seat) {
                        self.discard(old);
                    }
                }
                self.reports.push(Report::Ran { run, steps, finished });
            }
            Message::Failed { run, processor, error } if self.underway.remove(&run).is_some() => {
                self.keep.trouble(Trouble { at: self.now(), processor, what: error.to_string() });
                self.reports.push(Report::Failed { run });
            }
            // Models that were loaded before time began, and what comes too late.
            message => self.discard(message),
        }
    }

    /// Opens and closes the data of jobs that came and went at this instant.
    fn follow_jobs(&mut self) {
        let mut jobs = std::mem::take(&mut self.live.sink_mut().jobs);
        for what in jobs.drain(..) {
            match what {
                What::Release { job, source, .. } => self.store.release(job, source, &*self.feed),
                What::JobDone { job } | What::Drop { job, .. } => {
                    for seat in self.store.end(job) {
                        self.discard(seat);
                    }
                    self.live.forget(job);
                }
                _ => {}
            }
        }
        self.live.sink_mut().jobs = jobs;
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Launch(launch) => self.launch(launch),
            Command::Cut { run, .. } => {
                if let Some(underway) = self.underway.get(&run) {
                    underway.shared.cut.store(true, Ordering::Release);
                }
            }
            Command::Pace { run, stretch } => {
                if let Some(underway) = self.underway.get(&run) {
                    underway.shared.stretch.store(stretch.to_bits(), Ordering::Release);
                }
            }
            Command::Replan { run, ends_ns } => {
                if let Some(underway) = self.underway.get(&run) {
                    *underway.shared.ends_ns.lock().unwrap_or_else(PoisonError::into_inner) = Some(ends_ns);
                }
            }
            Command::Unload { model, processor } => {
                let system = self.system;
                for model in system.models.ids().filter(|&other| system.weights_of(other) == model) {
                    let spares = self.store.forget_spares(model, processor);
                    self.discard((spares, self.models.remove(model, processor)));
                }
            }
            Command::Forget { stage } => {
                if let Some(seat) = self.store.forget_stage(stage) {
                    self.discard(seat);
                }
            }
        }
    }

    fn launch(&mut self, launch: Launch) {
        let shared = Arc::new(Shared { stretch: launch.stretch.to_bits().into(), ..Shared::default() });
        let mut members = Vec::with_capacity(launch.members.len());
        for member in &launch.members {
            members.push(self.equip(&launch, member.serial, member.job, member.node, member.instance, member.fresh));
        }
        let key = (launch.processor, launch.slot);
        let given = Instant::now();
        let order = RunOrder { launch: launch.clone(), shared: Arc::clone(&shared), members, given };
        self.underway.insert(launch.run, Underway { launch, shared, seen_steps: 0, told_steps: 0 });
        // A queue that is full, or a thread that is gone, shows as a run that hangs.
        let _ = self.slots[&key].try_send(Order::Run(Box::new(order)));
    }

    /// What a stage needs besides the model: a session, and, if it begins, its input.
    fn equip(
        &mut self,
        launch: &Launch,
        stage: u64,
        job: u64,
        node: NodeId,
        instance: u32,
        fresh: bool,
    ) -> (Option<crate::store::Seat>, Vec<onbeat_backend::Data>) {
        if !self.system.platform.processors[launch.processor].runs_models() {
            self.store.rehearse(job, node);
            return (None, Vec::new());
        }
        let mut seat = self.store.take_seat(stage, node, is_streaming(self.system, node));
        if seat.as_ref().is_some_and(|seat| seat.model != launch.model) {
            // It was stopped before its first step, and switched to another variant since.
            self.discard(seat.take());
        }
        if seat.is_none() && fresh {
            seat = self.store.take_spare(node, launch.model, launch.processor);
        }
        (seat, self.store.input(self.system, &*self.feed, job, node, instance))
    }

    /// When the first of the runs that are under way counts as hanging.
    fn next_hang(&self) -> Nanos {
        let ends = self.live.expected_ends();
        let first = ends.map(|(_, _, start, end)| self.hang_at(start, end)).min();
        first.map_or(Nanos::MAX, |at| at.max(self.trusting_until))
    }

    fn hang_at(&self, start: Nanos, expected_end: Nanos) -> Nanos {
        let expected = (expected_end - start).as_f64() * self.options.hang_factor;
        let patience = expected.max(self.options.hang_floor.as_nanos() as f64);
        start.saturating_add(Nanos::from_ns_f64(patience))
    }

    fn look_for_hangs(&mut self, now: Nanos) {
        if now.saturating_sub(self.looked) > HELD_UP {
            self.trusting_until = now.saturating_add(Nanos::from_ns_f64(self.options.hang_floor.as_nanos() as f64));
        }
        self.looked = now;
        if now < self.trusting_until {
            return;
        }
        let over: Vec<(ProcessorId, u64)> = self
            .live
            .expected_ends()
            .filter(|&(_, run, start, end)| now >= self.hang_at(start, end) && self.underway.contains_key(&run))
            .map(|(p, run, _, _)| (p, run))
            .collect();
        for (processor, run) in over {
            if let Some(underway) = self.underway.get(&run) {
                let model = &self.system.models[underway.launch.model].name;
                let what = format!("`{model}` does not end; the processor counts as lost");
                self.keep.trouble(Trouble { at: now, processor, what });
                self.lose(processor);
            }
        }
    }

    /// Has nothing to do with a processor any more: neither with what runs there, nor with what is kept there.
    fn lose(&mut self, processor: ProcessorId) {
        self.lost.insert(processor);
        self.reports.push(Report::Lost { processor });
        let there = |launch: &Launch| {
            let helps = launch.joint.as_ref().is_some_and(|joint| joint.over.contains(processor));
            launch.processor == processor || helps
        };
        for (_, underway) in self.underway.extract_if(.., |_, underway| there(&underway.launch)) {
            underway.shared.cut.store(true, Ordering::Release);
            underway.shared.control.cancel();
        }
        let seats = self.store.forget_processor(processor);
        self.discard(seats);
    }
}

/// The models that run with a model's weights on a processor: itself, and variants that share them, which are networks of their own in a
/// real run.
fn networks(system: &System, weights: ModelId, p: ProcessorId) -> Vec<(ModelId, ProcessorId)> {
    let runs = |model: ModelId| {
        let here = |node: &Node| node.variant_of(model).is_some_and(|variant| node.costs_of(variant)[p].is_some());
        system.weights_of(model) == weights && system.nodes.iter().any(here)
    };
    system.models.ids().filter(|&model| runs(model)).map(|model| (model, p)).collect()
}
