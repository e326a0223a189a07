//! A slot of a processor: a thread that loads models and executes runs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use onbeat_backend::{Control, Data, Error, ErrorKind, Gate, Model, Session, Step};
use onbeat_core::cost::Phase;
use onbeat_core::id::{ModelId, NodeId, ProcessorId};
use onbeat_core::system::System;

use super::rehearse::rehearse;
use super::sync::{
    Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, Receiver, Sender, TryRecvError, yield_now,
};
use crate::library::Library;
use crate::store::Seat;
use crate::task::{Launch, Member, Report};

/// How long a slot of a real device looks for its next order before it sleeps.
const LOOK_FOR_ORDERS: Duration = Duration::from_micros(50);

/// The most instances that follow what a stage found: as many as a scenario file may ask for.
const FAN_OUT_MAX: u32 = 1024;

/// What a slot's thread and the dispatcher share about the run that is under way.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The run is to end at the next boundary.
    pub(crate) cut: AtomicBool,
    /// Steps done since its start.
    pub(crate) steps: AtomicU32,
    /// How many times as long as its profile says a virtual device takes: the bits of an `f64`.
    pub(crate) stretch: AtomicU64,
    /// What several virtual devices do together, if it was planned anew.
    pub(crate) ends_ns: Mutex<Option<std::sync::Arc<[f64]>>>,
    /// Ends what the device does, as soon as it can.
    pub(crate) control: Control,
}

/// What a slot's thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Load a model before the run begins.
    Load(ModelId, Control),
    /// Execute a run.
    Run(Box<RunOrder>),
}

/// A run to execute.
#[derive(Debug)]
pub(crate) struct RunOrder {
    pub(crate) launch: Launch,
    pub(crate) shared: Arc<Shared>,
    /// For each member: what it goes on with, and what it works on.
    pub(crate) members: Vec<(Option<Seat>, Vec<Data>)>,
    pub(crate) given: Instant,
}

/// What a slot's thread tells the dispatcher.
#[derive(Debug)]
pub(crate) enum Message {
    /// A model was loaded before the run began, or not.
    Loaded(Result<(), Error>),
    /// Something for the state machine, from a run.
    Report(u64, Report),
    /// Parts of a stage's output that a step has completed, with its number of tokens so far.
    Part { run: u64, job: u64, node: NodeId, stage: u64, tokens: u32, data: Vec<Data> },
    /// A run has ended.
    Ran { run: u64, ended: Ended },
    /// A device has failed a run.
    Failed { run: u64, processor: ProcessorId, error: Error },
}

/// The models that are loaded, or being loaded, on all processors.
#[derive(Debug, Default)]
pub(crate) struct Models {
    loaded: Mutex<BTreeMap<(ModelId, ProcessorId), Place>>,
}

/// Where a model is when it is loaded. Locked while it is being loaded, so that two slots of a processor do not both load it.
pub(crate) type Place = Arc<Mutex<Option<Arc<dyn Model>>>>;

impl Models {
    /// The model; calls `load` if it is not there.
    fn get_or_load(
        &self,
        model: ModelId,
        processor: ProcessorId,
        load: impl FnOnce() -> Result<Arc<dyn Model>, Error>,
    ) -> Result<Arc<dyn Model>, Error> {
        let place = Arc::clone(self.lock().entry((model, processor)).or_default());
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*place {
            return Ok(Arc::clone(loaded));
        }
        let loaded = load()?;
        *place = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// The model on any processor: for questions that do not depend on where it runs.
    fn any(&self, model: ModelId) -> Option<Arc<dyn Model>> {
        let there = self.lock();
        let mut places = there.iter().filter(|((other, _), _)| *other == model).map(|(_, place)| place);
        // One that is being loaded is no answer, and not waited for.
        places.find_map(|place| place.try_lock().ok()?.clone())
    }

    /// Takes a model out of the list. It is gone when the last run that uses it has ended.
    pub(crate) fn remove(&self, model: ModelId, processor: ProcessorId) -> Option<Place> {
        self.lock().remove(&(model, processor))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ModelId, ProcessorId), Place>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot of a processor.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) system: Arc<System>,
    pub(crate) processor: ProcessorId,
    pub(crate) library: Arc<dyn Library>,
    pub(crate) models: Arc<Models>,
    pub(crate) orders: Receiver<Order>,
    pub(crate) messages: Sender<Message>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) steps: u32,
    pub(crate) finished: bool,
    /// What a real run leaves of each of its members.
    pub(crate) left: Vec<Left>,
}

/// What a real run leaves of a member.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) member: Member,
    pub(crate) seat: Seat,
    /// What a finished stage has produced, and what follows from that.
    pub(crate) output: Option<(Vec<Data>, Vec<Report>)>,
}

impl Worker {
    /// Executes orders until there are no more. Sending fails only when the dispatcher is gone, and then nobody cares.
    pub(crate) fn work(self) {
        let real = self.system.platform.processors[self.processor].runs_models();
        while let Some(order) = self.next_order(real) {
            match order {
                Order::Load(model, control) => {
                    let loaded = if real { guarded(|| self.model(model, &control).map(drop)) } else { Ok(()) };
                    let _ = self.messages.send(Message::Loaded(loaded));
                }
                Order::Run(order) => {
                    let run = order.launch.run;
                    let ended = if real {
                        guarded(|| self.execute(*order))
                    } else {
                        let (steps, finished) =
                            rehearse(&self.system, &order.launch, &order.shared, order.given, &self.messages);
                        Ok(Ended { steps, finished, left: Vec::new() })
                    };
                    let message = match ended {
                        Ok(ended) => Message::Ran { run, ended },
                        Err(error) => Message::Failed { run, processor: self.processor, error },
                    };
                    let _ = self.messages.send(message);
                }
            }
        }
    }

    /// The next order; `None` when there are no more. The slot of a real device, which has often just ended a run whose successor is
    /// a few microseconds away, looks for it that long before it sleeps: waking a thread costs more than that.
    fn next_order(&self, real: bool) -> Option<Order> {
        let until = Instant::now() + LOOK_FOR_ORDERS;
        while real && Instant::now() < until {
            match self.orders.try_recv() {
                Ok(order) => return Some(order),
                Err(TryRecvError::Disconnected) => return None,
                // Others, the dispatcher above all, may need the core.
                Err(TryRecvError::Empty) => yield_now(),
            }
        }
        self.orders.recv().ok()
    }

    /// The model, loaded now if it is not in memory.
    fn model(&self, model: ModelId, control: &Control) -> Result<Arc<dyn Model>, Error> {
        self.models.get_or_load(model, self.processor, || self.library.load(model, self.processor, control))
    }

    fn execute(&self, order: RunOrder) -> Result<Ended, Error> {
        let RunOrder { launch, shared, members: equipment, .. } = order;
        let model = self.model(launch.model, &shared.control)?;
        let mut sessions = Vec::with_capacity(equipment.len());
        for (member, (seat, input)) in launch.members.iter().zip(equipment) {
            sessions.push(self.session(&*model, &launch, member, seat, &input, &shared.control)?);
        }
        let (steps, ended) = self.step(&launch, &*model, &mut sessions, &shared)?;
        let mut left = Vec::with_capacity(sessions.len());
        for ((member, mut session), &ended) in launch.members.iter().zip(sessions).zip(&ended) {
            let output = if ended { Some(self.hand_over(member, session.as_mut())?) } else { None };
            let seat = Seat { model: launch.model, processor: self.processor, session };
            left.push(Left { member: member.clone(), seat, output });
        }
        Ok(Ended { steps, finished: ended.contains(&true), left })
    }

    /// The session that a stage goes on with: its own, moved here if need be, or one that begins.
    fn session(
        &self,
        model: &dyn Model,
        launch: &Launch,
        member: &Member,
        seat: Option<Seat>,
        input: &[Data],
        control: &Control,
    ) -> Result<Box<dyn Session>, Error> {
        let mut session = match seat {
            Some(seat) if seat.processor == self.processor => seat.session,
            Some(seat) => {
                let mut here = model.open()?;
                match seat.session.save().and_then(|saved| here.restore(&saved)) {
                    Ok(()) => here,
                    // What was done elsewhere is done again; a language model's tokens could come out differently.
                    Err(error) if error.kind() == ErrorKind::Unsupported && launch.phase == Phase::Forward => {
                        return self.again(here, launch, member, input, control);
                    }
                    Err(error) => return Err(error),
                }
            }
            None if member.fresh => model.open()?,
            // It began on a virtual device, which has nothing to hand on.
            None if launch.phase == Phase::Forward => {
                return self.again(model.open()?, launch, member, input, control);
            }
            None => return Err(Error::unsupported("an inference that began on a virtual device cannot go on here")),
        };
        if member.fresh {
            session.begin(input)?;
        }
        Ok(session)
    }

    /// Does again, in a new session, what a preempted stage has behind it.
    fn again(
        &self,
        mut session: Box<dyn Session>,
        launch: &Launch,
        member: &Member,
        input: &[Data],
        control: &Control,
    ) -> Result<Box<dyn Session>, Error> {
        session.begin(input)?;
        for _ in 0..self.steps_before(launch, member) {
            session.step(1, control)?;
        }
        Ok(session)
    }

    /// How many segments a preempted stage has behind it.
    fn steps_before(&self, launch: &Launch, member: &Member) -> usize {
        let cost = self.system.nodes[member.node].costs_of(member.variant)[launch.processor].as_ref();
        let phase = cost.and_then(|cost| cost.phases.get(usize::from(launch.phase_index)));
        match phase {
            Some((_, onbeat_core::cost::PhaseCost::Fixed { boundaries, .. })) => {
                boundaries.iter().filter(|&&boundary| boundary <= member.from + 1e-9).count()
            }
            _ => 0,
        }
    }

    /// Steps through the phase until one of the members ends, the run is cut, or it has run as long as it may. Steps done, and which
    /// members have ended.
    fn step(
        &self,
        launch: &Launch,
        model: &dyn Model,
        sessions: &mut [Box<dyn Session>],
        shared: &Shared,
    ) -> Result<(u32, Vec<bool>), Error> {
        let forward = launch.phase == Phase::Forward;
        let left = |member: &Member| (member.work.units(launch.phase) - member.from).max(0.0) as u32;
        let left: Vec<u32> = launch.members.iter().map(|it| if forward { u32::MAX } else { left(it) }).collect();
        let most = left.iter().copied().min().unwrap_or(0).min(launch.steps_max.unwrap_or(u32::MAX));
        let mut ended = vec![false; sessions.len()];
        let mut steps: u32 = 0;
        while steps < most {
            if steps > 0 && shared.cut.load(Ordering::Acquire) {
                break;
            }
            let made = step_all(model, sessions, launch.units_per_step.min(most - steps), &shared.control)?;
            steps = steps.saturating_add(made.iter().map(|step| step.units).max().unwrap_or(0).max(1));
            for (i, step) in made.into_iter().enumerate() {
                let (member, mut parts) = (&launch.members[i], step.parts);
                // A language model that would go on is cut off at the longest output that there may be.
                let longest = match launch.phase {
                    Phase::Decode => steps >= left[i],
                    Phase::Prefill => steps >= left[i] && member.work.output <= 1,
                    _ => false,
                };
                if longest && !step.done {
                    parts.extend(sessions[i].end_early()?);
                }
                if !parts.is_empty() {
                    let tokens = if launch.phase == Phase::Decode { member.from as u32 + steps + 1 } else { 1 };
                    let Member { job, node, serial: stage, .. } = *member;
                    let run = launch.run;
                    let _ = self.messages.send(Message::Part { run, job, node, stage, tokens, data: parts });
                }
                ended[i] = step.done || longest;
            }
            // After the parts: whoever sees these steps finds their parts among the messages.
            shared.steps.store(steps, Ordering::Release);
            if ended.contains(&true) {
                break;
            }
        }
        Ok((steps, ended))
    }

    /// What a finished stage has produced, and what follows from it.
    fn hand_over(&self, member: &Member, session: &mut dyn Session) -> Result<(Vec<Data>, Vec<Report>), Error> {
        let output = session.finish()?;
        let mut reports = Vec::new();
        let (job, node) = (member.job, member.node);
        for (number, edge) in self.system.nodes[node].after.iter().enumerate() {
            if edge.probability < 1.0 || edge.fan_out.is_some() {
                let count = match output.gate {
                    Gate::Unknown => None,
                    Gate::Stop => Some(0),
                    Gate::Follow(count) => Some(if edge.fan_out.is_some() { count.min(FAN_OUT_MAX) } else { 1 }),
                };
                reports.extend(count.map(|count| Report::Follow { job, node, edge: number as u32, count }));
            }
            reports.extend(self.size_up(job, edge.to, &output.data));
        }
        Ok((output.data, reports))
    }

    /// How long the prompt of a stage that follows is, if that is known here.
    fn size_up(&self, job: u64, node: NodeId, data: &[Data]) -> Option<Report> {
        let next = &self.system.nodes[node];
        let talks = next.costs.iter().flatten().any(|cost| cost.phases.iter().any(|(kind, _)| *kind == Phase::Prefill));
        if !talks {
            return None;
        }
        let size = self.models.any(next.model)?.size(data).ok()?;
        let output_max = next.output_max.max(next.expected.output).max(1);
        Some(Report::Prompt { job, node, instance: 0, prompt: size.prompt, output_max })
    }
}

/// One step of each session: together, as many at once as the model takes.
fn step_all(
    model: &dyn Model,
    sessions: &mut [Box<dyn Session>],
    units: u32,
    control: &Control,
) -> Result<Vec<Step>, Error> {
    if let [one] = sessions {
        return Ok(vec![one.step(units, control)?]);
    }
    let mut steps = Vec::with_capacity(sessions.len());
    for some in sessions.chunks_mut(model.members_max().max(1)) {
        let mut some: Vec<&mut dyn Session> = some.iter_mut().map(|it| &mut **it as &mut dyn Session).collect();
        steps.extend(model.step_together(&mut some, control)?);
    }
    Ok(steps)
}

/// Does something that other people's code takes part in. A panic there is an error of the device here: the slot goes on.
fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // Nothing that the work has touched is used again: its session and its input are gone.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Error::device(format!("it panicked: {text}")))
    })
}
