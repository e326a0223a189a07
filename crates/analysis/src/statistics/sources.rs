//! What became of the jobs of each stream and session.

use onbeat_core::cost::Work;
use onbeat_core::id::{Id, IdVec, NodeId, SourceId};
use onbeat_core::spec::ModelShape;
use onbeat_core::system::{Source, System};
use onbeat_core::units::{Bytes, Nanos};

use super::actions::Robot;
use super::processors::worst_energy;
use super::samples::Samples;
use super::scores::{StageTally, Xrbench};

/// No further stage in a job's list.
pub(super) const NONE: u64 = u64::MAX;

/// A live job.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveJob {
    pub(super) source: SourceId,
    pub(super) nominal: Nanos,
    pub(super) deadline: Option<Nanos>,
    /// Class of what it sees.
    pub(super) content: Option<u8>,
    /// Whether it was released after the warm-up.
    pub(super) counted: bool,
    /// Its latest stage; stages form a list.
    pub(super) last_stage: u64,
    /// First token of the chain's last language model stage.
    first_token: Option<Nanos>,
    /// From the first token to the last one, and the tokens after the first: sums over the instances of that stage.
    decoding: Nanos,
    later_tokens: u64,
    /// An instance of that stage that has its first token and is not finished: since when, and its tokens after the first.
    open: Option<(Nanos, u32)>,
    /// Energy so far [mJ]; `None` once some of it is unknown.
    energy: Option<f64>,
    /// Worst-case energy of its finished stages [mJ].
    worst: Option<f64>,
    /// Stages of the chain that became ready, and that finished; bit i is the source's stage i.
    ready: u64,
    done: u64,
}

/// A live stage, or one that has finished within a live job.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveStage {
    pub(super) job: u64,
    pub(super) node: NodeId,
    /// The variant that it runs.
    pub(super) variant: u8,
    /// The job's stage before this one in its list.
    pub(super) previous: u64,
    prompt: u32,
    pub(super) output: u32,
    first_token: Option<Nanos>,
    energy: Option<f64>,
}

impl LiveJob {
    pub(super) fn new(
        source: SourceId,
        (nominal, deadline): (Nanos, Option<Nanos>),
        content: Option<u8>,
        counted: bool,
    ) -> Self {
        Self {
            source,
            nominal,
            deadline,
            content,
            counted,
            last_stage: NONE,
            first_token: None,
            decoding: Nanos::ZERO,
            later_tokens: 0,
            open: None,
            energy: Some(0.0),
            worst: Some(0.0),
            ready: 0,
            done: 0,
        }
    }
}

impl LiveStage {
    pub(super) fn new(job: u64, node: NodeId, previous: u64, prompt: u32, output: u32) -> Self {
        Self { job, node, variant: 0, previous, prompt, output, first_token: None, energy: Some(0.0) }
    }
}

/// Counts and times of one source, over the jobs that count.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// The chain's last language model stage.
    language: Option<NodeId>,
    first_node: u32,
    pub(super) required: bool,
    pub(super) jobs: u64,
    pub(super) done: u64,
    pub(super) dropped: u64,
    pub(super) unfinished: u64,
    pub(super) judged: u64,
    pub(super) violations: u64,
    pub(super) tokens: u64,
    pub(super) response: Samples,
    pub(super) tardiness: Samples,
    pub(super) ttft: Samples,
    pub(super) tpot: Samples,
    /// Jobs with a deadline that finished, were dropped or were unfinished past it.
    pub(super) frames: u64,
    /// Sum of real-time score × clamped energy score over done jobs with a deadline; `None` once an energy is unknown.
    pub(super) xrbench: Option<f64>,
    /// Energy of done jobs, and the worst case of the same work [mJ].
    pub(super) energy: Option<f64>,
    pub(super) worst_energy: Option<f64>,
    /// Stage completions.
    pub(super) stages: Vec<StageTally>,
    /// Processor time that the work done would have taken alone [ns].
    pub(super) work_ns: f64,
    /// What a robot does with the outputs.
    pub(super) robot: Option<Robot>,
    /// What became of caches that had to leave memory; `None`: none had to.
    pub(super) caches: Option<Caches>,
}

/// What became of caches that left memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caches {
    /// Tokens that were computed again.
    pub(super) recomputed: u64,
    /// Moved to slower memory.
    pub(super) out: Bytes,
    /// Read back.
    pub(super) back: Bytes,
    /// How long the link was busy with both.
    pub(super) took: Nanos,
}

impl Caches {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            recomputed: self.recomputed + other.recomputed,
            out: self.out + other.out,
            back: self.back + other.back,
            took: self.took + other.took,
        }
    }
}

/// Whether anything is asked of the source's jobs.
fn required(source: &Source) -> bool {
    source.deadline.is_some() || source.ttft.is_some() || source.tpot.is_some()
}

/// All sources' tallies.
#[derive(Clone, Debug)]
pub(super) struct Tallies<'s> {
    system: &'s System,
    pub(super) xrbench: Xrbench,
    pub(super) by_source: IdVec<SourceId, Tally>,
    /// Worst-case energy of a stage whose size never changes.
    fixed_worst: IdVec<NodeId, Option<f64>>,
}

impl<'s> Tallies<'s> {
    pub(super) fn new(system: &'s System) -> Self {
        let autoregressive = |node: NodeId| system.models[system.nodes[node].model].shape == ModelShape::Autoregressive;
        let tally = |(id, source): (SourceId, &Source)| Tally {
            language: system.nodes_of(id).filter(|&node| autoregressive(node)).last(),
            first_node: source.nodes.start,
            required: required(source),
            jobs: 0,
            done: 0,
            dropped: 0,
            unfinished: 0,
            judged: 0,
            violations: 0,
            tokens: 0,
            response: Samples::new(),
            tardiness: Samples::new(),
            ttft: Samples::new(),
            tpot: Samples::new(),
            frames: 0,
            xrbench: Some(0.0),
            energy: Some(0.0),
            worst_energy: Some(0.0),
            stages: StageTally::of_chain(system, id),
            work_ns: 0.0,
            robot: source.actions.map(|actions| Robot::new(actions, system.warm_up)),
            caches: None,
        };
        let fixed = |node: NodeId| {
            let work = Work { steps: system.nodes[node].steps, ..Work::default() };
            if autoregressive(node) { None } else { worst_energy(system, node, work) }
        };
        Self {
            system,
            xrbench: Xrbench::default(),
            by_source: system.sources.enumerate().map(tally).collect(),
            fixed_worst: system.nodes.ids().map(fixed).collect(),
        }
    }

    /// The run is over.
    pub(super) fn finish(&mut self, end: Nanos) {
        for robot in self.by_source.iter_mut().filter_map(|tally| tally.robot.as_mut()) {
            robot.execute(end);
        }
    }

    pub(super) fn released(&mut self, job: &LiveJob) {
        self.by_source[job.source].jobs += u64::from(job.counted);
    }

    pub(super) fn ready(&self, job: &mut LiveJob, node: NodeId) {
        job.ready |= self.bit(job, node);
    }

    /// A cache of the job left memory, or came back.
    pub(super) fn cache_left(&mut self, job: &LiveJob, moved: Caches) {
        if job.counted {
            let tally = &mut self.by_source[job.source];
            tally.caches = Some(tally.caches.unwrap_or_default().and(moved));
        }
    }

    /// A part of a stage's work was done.
    pub(super) fn worked(
        &mut self,
        job: &mut LiveJob,
        stage: &mut LiveStage,
        alone: Nanos,
        energy: Option<f64>,
        tokens: u32,
    ) {
        if alone > Nanos::ZERO || energy.is_some() {
            stage.energy = stage.energy.zip(energy).map(|(sum, part)| sum + part);
            job.energy = job.energy.zip(energy).map(|(sum, part)| sum + part);
        }
        if job.counted {
            let tally = &mut self.by_source[job.source];
            tally.tokens += u64::from(tokens);
            tally.work_ns += alone.as_f64();
        }
    }

    pub(super) fn first_token(&mut self, job: &mut LiveJob, stage: &mut LiveStage, at: Nanos) {
        stage.first_token.get_or_insert(at);
        let tally = &mut self.by_source[job.source];
        if tally.language == Some(stage.node) {
            job.open = Some((at, stage.output.saturating_sub(1)));
            if job.first_token.is_none() {
                job.first_token = Some(at);
                if job.counted {
                    tally.ttft.add(at.saturating_sub(job.nominal));
                }
            }
        }
    }

    pub(super) fn stage_done(&mut self, job: &mut LiveJob, stage: &LiveStage, at: Nanos) {
        job.done |= self.bit(job, stage.node);
        let node = &self.system.nodes[stage.node];
        let tally = &mut self.by_source[job.source];
        let first = self.system.sources[job.source].actions.and_then(|actions| actions.first);
        if let Some(robot) = tally.robot.as_mut().filter(|_| first == Some(stage.node)) {
            robot.chunk(job.nominal, at);
        }
        if let Some(first) = stage.first_token.filter(|_| tally.language == Some(stage.node)) {
            job.decoding = job.decoding.saturating_add(at.saturating_sub(first));
            job.later_tokens += u64::from(stage.output.saturating_sub(1));
            job.open = None;
        }
        let worst = if stage.output > 0 {
            worst_energy(
                self.system,
                stage.node,
                Work { prompt: stage.prompt, output: stage.output, steps: node.steps, ..Work::default() },
            )
        } else {
            self.fixed_worst[stage.node]
        };
        job.worst = job.worst.zip(worst).map(|(sum, part)| sum + part);
        if job.counted
            && let Some(of_stage) = tally.stages.get_mut((stage.node.0 - tally.first_node) as usize)
        {
            of_stage.executed(&self.xrbench, (stage.variant, job.content), at, job.deadline, stage.energy);
        }
    }

    pub(super) fn job_done(&mut self, job: &LiveJob, at: Nanos) {
        let first = self.system.sources[job.source].actions.and_then(|actions| actions.first);
        if let Some(robot) = self.by_source[job.source].robot.as_mut().filter(|_| first.is_none()) {
            robot.chunk(job.nominal, at);
        }
        if !job.counted {
            return;
        }
        let source = &self.system.sources[job.source];
        let tally = &mut self.by_source[job.source];
        tally.done += 1;
        tally.response.add(at.saturating_sub(job.nominal));
        tally.energy = tally.energy.zip(job.energy).map(|(sum, energy)| sum + energy);
        tally.worst_energy = tally.worst_energy.zip(job.worst).map(|(sum, worst)| sum + worst);
        let mut violated = false;
        if let Some(deadline) = job.deadline {
            tally.tardiness.add(at.saturating_sub(deadline));
            tally.frames += 1;
            let score = job
                .energy
                .map(|energy| self.xrbench.real_time(at, deadline) * self.xrbench.energy(energy).clamp(0.0, 1.0));
            tally.xrbench = tally.xrbench.zip(score).map(|(sum, score)| sum + score);
            violated |= at > deadline;
        }
        if let Some(first) = job.first_token {
            violated |= source.ttft.is_some_and(|goal| first.saturating_sub(job.nominal) > goal);
            if let Some(tpot) = job.decoding.0.checked_div(job.later_tokens) {
                tally.tpot.add(Nanos(tpot));
                let within =
                    |goal: Nanos| u128::from(job.decoding.0) <= u128::from(goal.0) * u128::from(job.later_tokens);
                violated |= source.tpot.is_some_and(|goal| !within(goal));
            }
        }
        // Goals say nothing about a request that took a branch without a language model.
        let goals = (source.ttft.is_some() || source.tpot.is_some()) && job.first_token.is_some();
        tally.judged += u64::from(goals || job.deadline.is_some());
        tally.violations += u64::from(violated);
    }

    pub(super) fn job_dropped(&mut self, job: &LiveJob) {
        if !job.counted {
            return;
        }
        let tally = &mut self.by_source[job.source];
        tally.dropped += 1;
        tally.frames += u64::from(job.deadline.is_some());
        let judged = u64::from(tally.required || job.deadline.is_some());
        tally.judged += judged;
        tally.violations += judged;
        if job.deadline.is_some() {
            for (i, of_stage) in tally.stages.iter_mut().enumerate().filter(|&(i, _)| i >= 64 || job.done >> i & 1 == 0)
            {
                of_stage.dropped(i < 64 && job.ready >> i & 1 == 1);
            }
        }
    }

    /// The run ended at `end` with the job unfinished.
    pub(super) fn job_unfinished(&mut self, job: &LiveJob, end: Nanos) {
        if !job.counted {
            return;
        }
        let source = &self.system.sources[job.source];
        let tally = &mut self.by_source[job.source];
        tally.unfinished += 1;
        let late = job.deadline.is_some_and(|deadline| end > deadline);
        let first_due = source.ttft.map(|goal| job.nominal.saturating_add(goal));
        // A first token that came out late is as certain a violation as one that has not come out in time.
        let late_token =
            first_due.is_some_and(|due| job.first_token.unwrap_or(end.saturating_add(Nanos(1))) > due && end > due);
        // Tokens that are overdue so much that the mean goal is out of reach even if the rest came at once.
        let late_tokens = job.open.zip(source.tpot).is_some_and(|((first, later), goal)| {
            let spent = u128::from(end.saturating_sub(first).0) + u128::from(job.decoding.0);
            spent > u128::from(goal.0) * (u128::from(later) + u128::from(job.later_tokens))
        });
        let failed = late || late_token || late_tokens;
        tally.frames += u64::from(late);
        tally.judged += u64::from(failed);
        tally.violations += u64::from(failed);
    }

    /// The bit of a stage within its job; none past the 64th stage of a chain.
    fn bit(&self, job: &LiveJob, node: NodeId) -> u64 {
        let i = node.index().wrapping_sub(self.by_source[job.source].first_node as usize);
        if i < 64 { 1 << i } else { 0 }
    }
}
