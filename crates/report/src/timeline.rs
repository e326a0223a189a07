//! What ran where and when, from the events of a run: slices on lanes, jobs on strips, misses and drops.

use std::collections::BTreeMap;

use onbeat_core::cost::Phase;
use onbeat_core::event::{DropCause, Event, StopReason, What};
use onbeat_core::id::{Id, ModelId, NodeId, ProcessorId, ProcessorSet, SourceId};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

/// A run, or a window of it, as lanes with slices and strips with jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// One lane per processor and slot, in the platform's order.
    pub lanes: Vec<Lane>,
    /// What ran, in order of start.
    pub slices: Vec<Slice>,
    /// Jobs in order of release.
    pub jobs: Vec<Job>,
    /// Deadlines and goals missed and jobs dropped, in order of time.
    pub marks: Vec<Mark>,
    /// Memory in use: steps of (time, bytes from then on).
    pub memory: Vec<(Nanos, u64)>,
    /// Traffic on the memory bus: steps of (time, GB/s from then on).
    pub bus: Vec<(Nanos, f64)>,
    /// Readings of processors' power, where the platform says anything about it.
    pub power: Vec<PowerReading>,
    /// Start of the window.
    pub from: Nanos,
    /// End of the window.
    pub to: Nanos,
}

/// A slot of a processor; of one that is divided into units, one of as many as it has runs at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Processor.
    pub processor: ProcessorId,
    /// Slot of the processor, from 0.
    pub slot: u32,
    /// Name: the processor's, with the slot if it has several.
    pub name: String,
}

/// A run of a stage, or of a batch of stages, on a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// Index of the lane.
    pub lane: usize,
    /// Start, with setup.
    pub start: Nanos,
    /// When progress begins: the end of context switch, loading and hand-over.
    pub ready: Nanos,
    /// End.
    pub end: Nanos,
    /// Serial number of the job; in a batch, of the first one.
    pub job: u64,
    /// Serial number of the stage; in a batch, of the first one.
    pub stage: u64,
    /// Which stage of which chain.
    pub node: NodeId,
    /// Stream or session.
    pub source: SourceId,
    /// Model.
    pub model: ModelId,
    /// Phase.
    pub phase: Phase,
    /// Units that it took of a processor that is divided into them; 0: all of it.
    pub units: u32,
    /// Stages that ran together.
    pub batch: u32,
    /// Why it ended; none if the window ended first.
    pub why: Option<StopReason>,
    /// Output tokens of all stages in it.
    pub tokens: u32,
}

/// What a processor's power was read to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerReading {
    /// When.
    pub at: Nanos,
    /// Which processor.
    pub processor: ProcessorId,
    /// Speed of its operating point from then on, relative to the first.
    pub speed: f64,
    /// Power from then on [W], where known.
    pub watts: Option<f64>,
    /// Temperature [°C], where modelled.
    pub celsius: Option<f64>,
}

/// A job from release to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Serial number.
    pub job: u64,
    /// Stream or session.
    pub source: SourceId,
    /// Nominal release.
    pub release: Nanos,
    /// Absolute deadline.
    pub deadline: Option<Nanos>,
    /// When it was done, dropped or cut off; the window's end if none of it is known.
    pub end: Nanos,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Given up.
    Dropped(DropCause),
    /// Still going on at the end.
    Open,
}

/// Something that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When: for a miss, the moment at which the deadline or goal passed or was found missed.
    pub at: Nanos,
    /// Serial number of the job.
    pub job: u64,
    /// Stream or session.
    pub source: SourceId,
    /// What.
    pub kind: MarkKind,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// The deadline passed before the job was done.
    Deadline,
    /// The first token came after its goal.
    Ttft,
    /// Tokens followed each other too slowly.
    Tpot,
    /// The job was dropped.
    Dropped(DropCause),
}

impl MarkKind {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline missed",
            Self::Ttft => "first token late",
            Self::Tpot => "tokens too slow",
            Self::Dropped(DropCause::Late) => "dropped: late",
            Self::Dropped(DropCause::Hopeless) => "dropped: hopeless",
            Self::Dropped(DropCause::QueueFull) => "dropped: queue full",
            Self::Dropped(DropCause::Policy) => "dropped by the policy",
            Self::Dropped(DropCause::Failed) => "dropped: a device failed",
        }
    }

    /// Whether the job was dropped.
    pub fn is_drop(self) -> bool {
        matches!(self, Self::Dropped(_))
    }
}

/// Why a run ended, in words.
pub fn why_name(why: Option<StopReason>) -> &'static str {
    match why {
        Some(StopReason::Finished) => "finished",
        Some(StopReason::Quantum) => "quantum used up",
        Some(StopReason::Preempted) => "preempted",
        Some(StopReason::Rebatched) => "batch changed",
        Some(StopReason::Horizon) => "end of the run",
        None => "goes on after the window",
    }
}

/// An autoregressive stage whose tokens are coming out.
struct Talking {
    first: Nanos,
    output: u32,
}

/// A live stage.
#[derive(Clone, Copy)]
struct Seen {
    job: u64,
    node: NodeId,
    /// In the variant that it runs.
    model: ModelId,
    /// Output tokens.
    output: u32,
}

struct Builder<'a> {
    system: &'a System,
    lanes: Vec<Lane>,
    /// First lane of each processor, and of the next one.
    first_lane: Vec<usize>,
    /// Run that occupies each lane.
    occupied: Vec<Option<u64>>,
    /// Slices that have not ended, by run.
    open: BTreeMap<u64, (Slice, u32)>,
    /// Runs, and lanes of other processors that work on them.
    helping: Vec<(u64, usize)>,
    /// Stages by serial number.
    stages: BTreeMap<u64, Seen>,
    talking: BTreeMap<u64, Talking>,
    slices: Vec<Slice>,
    jobs: BTreeMap<u64, Job>,
    marks: Vec<Mark>,
    memory: Vec<(Nanos, u64)>,
    bus: Vec<(Nanos, f64)>,
    power: Vec<PowerReading>,
}

impl Timeline {
    /// The window `from`..`to` of a run. The events must begin with those of the run; those after the window are not needed. The
    /// window ends with the last event, if that is earlier.
    ///
    /// Events that refer to stages or jobs whose beginning is missing are left out.
    pub fn new(system: &System, events: &[Event], from: Nanos, to: Nanos) -> Self {
        let seen = events.partition_point(|event| event.at <= to);
        let mut builder = Builder::new(system, &events[..seen]);
        for event in &events[..seen] {
            builder.event(event);
        }
        // Nothing is known after the last event: what runs then must not seem to run on to the end of the window.
        let end = if seen == events.len() { events.last().map_or(from, |event| event.at) } else { to };
        builder.finish(from, end.max(from))
    }

    /// The same window, ended early if it would have more than `slices_max` slices.
    pub fn fit(system: &System, events: &[Event], from: Nanos, to: Nanos, slices_max: usize) -> Self {
        let mut timeline = Self::new(system, events, from, to);
        if timeline.slices.len() > slices_max {
            let to = timeline.slices[slices_max].start;
            timeline = Self::new(system, events, from, to);
            timeline.slices.truncate(slices_max);
        }
        timeline
    }
}

/// The most runs that a processor has at once, at least 1.
fn most_at_once(events: &[Event], processor: ProcessorId) -> u32 {
    // Stages that each run serves.
    let mut runs: BTreeMap<u64, u32> = BTreeMap::new();
    let mut most = 1;
    for event in events {
        match event.what {
            What::Start { run, processor: on, over, .. } if on == processor || over.contains(processor) => {
                *runs.entry(run).or_insert(0) += 1;
                most = most.max(runs.len());
            }
            What::Stop { run, .. } => {
                if let Some(stages) = runs.get_mut(&run) {
                    *stages -= 1;
                    if *stages == 0 {
                        runs.remove(&run);
                    }
                }
            }
            _ => {}
        }
    }
    most as u32
}

impl<'a> Builder<'a> {
    fn new(system: &'a System, events: &[Event]) -> Self {
        let mut lanes = Vec::new();
        let mut first_lane = Vec::new();
        for (processor, p) in system.platform.processors.enumerate() {
            first_lane.push(lanes.len());
            let count = if p.division.is_some() { most_at_once(events, processor) } else { p.slots };
            lanes.extend((0..count).map(|slot| Lane {
                processor,
                slot,
                name: if count > 1 { format!("{} {}", p.name, slot + 1) } else { p.name.clone() },
            }));
        }
        first_lane.push(lanes.len());
        let occupied = vec![None; lanes.len()];
        Self {
            system,
            lanes,
            first_lane,
            occupied,
            open: BTreeMap::new(),
            helping: Vec::new(),
            stages: BTreeMap::new(),
            talking: BTreeMap::new(),
            slices: Vec::new(),
            jobs: BTreeMap::new(),
            marks: Vec::new(),
            memory: Vec::new(),
            bus: Vec::new(),
            power: Vec::new(),
        }
    }

    fn event(&mut self, event: &Event) {
        let at = event.at;
        match event.what {
            What::Release { job, source, nominal, deadline, .. } => {
                let outcome = Outcome::Open;
                self.jobs.insert(job, Job { job, source, release: nominal, deadline, end: at, outcome });
            }
            What::Length { stage, output } => {
                if let Some(seen) = self.stages.get_mut(&stage) {
                    seen.output = output;
                }
                if let Some(talking) = self.talking.get_mut(&stage) {
                    talking.output = output;
                }
            }
            What::Ready { stage, job, node, output, .. } => {
                self.stages.insert(stage, Seen { job, node, model: self.system.nodes[node].model, output });
            }
            What::Switch { stage, model, .. } => {
                if let Some(seen) = self.stages.get_mut(&stage) {
                    seen.model = model;
                }
            }
            What::Start { run, stage, processor, phase, setup, over, units } => {
                self.start(at, run, stage, processor, (phase, units), setup);
                self.help(run, over);
            }
            What::Stop { run, why, tokens, .. } => self.stop(at, run, why, tokens),
            What::FirstToken { stage, job } => self.first_token(at, stage, job),
            What::StageDone { stage, job } => self.stage_done(at, stage, job),
            What::JobDone { job } => self.job_ends(at, job, Outcome::Done),
            What::Drop { job, cause } => {
                self.job_ends(at, job, Outcome::Dropped(cause));
                self.mark(at, job, MarkKind::Dropped(cause));
            }
            What::Unfinished { job } => self.job_ends(at, job, Outcome::Open),
            What::Load { used, .. } | What::Evict { used, .. } | What::Memory { used } => {
                self.memory.push((at, used.0));
            }
            What::Bus { traffic, .. } => self.bus.push((at, traffic)),
            What::Power { processor, point, watts, celsius, .. } => {
                let unit = self.system.platform.processors.get(processor).and_then(|unit| unit.power.as_ref());
                let speed = unit.and_then(|model| model.points.get(point as usize)).map_or(1.0, |point| point.speed);
                self.power.push(PowerReading { at, processor, speed, watts, celsius });
            }
            What::OutOfMemory { .. }
            | What::EvictCache { .. }
            | What::PlaceCache { .. }
            | What::CopyCache { .. }
            | What::ReadCache { .. }
            | What::Asked { .. }
            | What::Progress { .. }
            | What::Ended { .. }
            | What::Ran { .. }
            | What::Part { .. }
            | What::Follow { .. }
            | What::Failed { .. }
            | What::Lost { .. }
            | What::End => {}
        }
    }

    fn start(
        &mut self,
        at: Nanos,
        run: u64,
        stage: u64,
        processor: ProcessorId,
        (phase, units): (Phase, u32),
        setup: Nanos,
    ) {
        if let Some((slice, running)) = self.open.get_mut(&run) {
            slice.batch += 1;
            *running += 1;
            return;
        }
        let Some(&Seen { job, node, model, .. }) = self.stages.get(&stage) else { return };
        let lane = self.take_lane(processor, run);
        let source = self.system.nodes[node].source;
        let slice = Slice {
            lane,
            start: at,
            ready: at.saturating_add(setup),
            end: at,
            job,
            stage,
            node,
            source,
            model,
            phase,
            units,
            batch: 1,
            why: None,
            tokens: 0,
        };
        self.open.insert(run, (slice, 1));
    }

    /// Other processors work on a run: it has a slice on one lane of each.
    fn help(&mut self, run: u64, helpers: ProcessorSet) {
        for helper in helpers.iter() {
            let lane = self.take_lane(helper, run);
            self.helping.push((run, lane));
        }
    }

    /// A free lane of a processor, for a run.
    fn take_lane(&mut self, processor: ProcessorId, run: u64) -> usize {
        let (first, next) = (self.first_lane[processor.index()], self.first_lane[processor.index() + 1]);
        // A record of a real run can show more runs at once than the platform has slots; they then share the last lane.
        let lane = (first..next).find(|&lane| self.occupied[lane].is_none()).unwrap_or(next - 1);
        self.occupied[lane] = Some(run);
        lane
    }

    fn stop(&mut self, at: Nanos, run: u64, why: StopReason, tokens: u32) {
        let Some((slice, running)) = self.open.get_mut(&run) else { return };
        slice.tokens += tokens;
        slice.why = Some(why);
        *running -= 1;
        if *running == 0 {
            self.close(run, at);
        }
    }

    fn close(&mut self, run: u64, at: Nanos) {
        let Some((mut slice, _)) = self.open.remove(&run) else { return };
        slice.end = at;
        // In a real run the setup that the policy counted with may not have been over.
        slice.ready = slice.ready.min(at);
        slice.ready = slice.ready.min(at);
        self.free_lane(slice.lane, run);
        while let Some(i) = self.helping.iter().position(|&(helped, _)| helped == run) {
            // Tokens and batch are those of the stage's own processor.
            let lane = self.helping.swap_remove(i).1;
            self.free_lane(lane, run);
            self.slices.push(Slice { lane, tokens: 0, ..slice });
        }
        self.slices.push(slice);
    }

    fn free_lane(&mut self, lane: usize, run: u64) {
        if self.occupied[lane] == Some(run) {
            self.occupied[lane] = None;
        }
    }

    fn first_token(&mut self, at: Nanos, stage: u64, job: u64) {
        let Some(&Seen { node, output, .. }) = self.stages.get(&stage) else { return };
        self.talking.insert(stage, Talking { first: at, output });
        let (Some(job_seen), true) = (self.jobs.get(&job), self.is_last_talker(node)) else {
            return;
        };
        let goal = self.system.sources[job_seen.source].ttft;
        if goal.is_some_and(|goal| at > job_seen.release.saturating_add(goal)) {
            self.mark(at, job, MarkKind::Ttft);
        }
    }

    /// Whether goals for tokens apply to the stage: it is the last autoregressive one of its chain.
    fn is_last_talker(&self, node: NodeId) -> bool {
        let source = self.system.nodes[node].source;
        let talks = |id: &NodeId| {
            let costs = &self.system.nodes[*id].costs;
            costs.iter().flatten().any(|cost| cost.phases.iter().any(|(phase, _)| *phase == Phase::Prefill))
        };
        self.system.nodes_of(source).filter(talks).last() == Some(node)
    }

    fn stage_done(&mut self, at: Nanos, stage: u64, job: u64) {
        let Some(Seen { node, .. }) = self.stages.remove(&stage) else { return };
        let Some(talking) = self.talking.remove(&stage) else { return };
        let (Some(job_seen), true) = (self.jobs.get(&job), self.is_last_talker(node)) else {
            return;
        };
        let steps = talking.output.saturating_sub(1);
        if let Some(goal) = self.system.sources[job_seen.source].tpot.filter(|_| steps > 0)
            && at.saturating_sub(talking.first).as_f64() / f64::from(steps) > goal.as_f64()
        {
            self.mark(at, job, MarkKind::Tpot);
        }
    }

    fn job_ends(&mut self, at: Nanos, job: u64, outcome: Outcome) {
        if let Some(seen) = self.jobs.get_mut(&job) {
            seen.end = at;
            seen.outcome = outcome;
        }
    }

    fn mark(&mut self, at: Nanos, job: u64, kind: MarkKind) {
        if let Some(seen) = self.jobs.get(&job) {
            self.marks.push(Mark { at, job, source: seen.source, kind });
        }
    }

    fn finish(mut self, from: Nanos, to: Nanos) -> Timeline {
        let open: Vec<u64> = self.open.keys().copied().collect();
        for run in open {
            if let Some((slice, _)) = self.open.get_mut(&run) {
                slice.why = None;
            }
            self.close(run, to);
        }
        for job in self.jobs.values_mut() {
            if job.outcome == Outcome::Open {
                job.end = to;
            }
            let dropped = matches!(job.outcome, Outcome::Dropped(_));
            if let Some(deadline) = job.deadline.filter(|&deadline| job.end > deadline && !dropped) {
                self.marks.push(Mark { at: deadline, job: job.job, source: job.source, kind: MarkKind::Deadline });
            }
        }
        let mut slices: Vec<Slice> =
            self.slices.into_iter().filter(|slice| slice.end > from || slice.start >= from).collect();
        slices.sort_by_key(|slice| (slice.start, slice.lane));
        let mut jobs: Vec<Job> = self.jobs.into_values().filter(|job| job.end >= from && job.release <= to).collect();
        jobs.sort_by_key(|job| (job.release, job.job));
        let mut marks: Vec<Mark> = self.marks.into_iter().filter(|mark| mark.at >= from && mark.at <= to).collect();
        marks.sort_by_key(|mark| (mark.at, mark.job));
        Timeline {
            lanes: self.lanes,
            slices,
            jobs,
            marks,
            memory: self.memory,
            bus: self.bus,
            power: self.power,
            from,
            to,
        }
    }
}
