//! `mk-firm`: of any k jobs of a stream at least m are to be on time; the stream that is closest to failing that goes first.

use onbeat_core::id::{Id, JobId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::state::Job;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::edf::PREEMPTIVE;
use crate::outcomes::Outcomes;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::Times;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "mk-firm",
    summary: "Of any k jobs of a stream m are to be on time: the stream whose last k are closest to failing that goes first",
    group: "real-time",
    parameters: &[
        ParameterInfo {
            name: "m",
            default: "2",
            meaning: "how many of any k jobs of a stream are to be on time, 1 to k; one value for all streams",
        },
        ParameterInfo { name: "k", default: "3", meaning: "how many jobs of a stream are looked back on, 1 to 64" },
        PREEMPTIVE,
    ],
    reference: "Hamdaoui and Ramanathan, A Dynamic Priority Assignment Technique for Streams with (m,k)-Firm Deadlines, IEEE Transactions on Computers 44(12), 1995",
    build,
};

/// Closest to failing first.
#[derive(Clone, Debug)]
struct MkFirm {
    order: Distances,
    dispatch: Dispatch,
    alarm: Alarm,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let (m, k) = (parameters.count("m")?, parameters.count("k")?);
    if m > k {
        return Err(PolicyError::BadValue {
            policy: INFO.name,
            parameter: "m",
            value: m.to_string(),
            allowed: "at most k",
        });
    }
    let order = Distances {
        preemptive: parameters.flag("preemptive")?,
        streams: vec![Stream::new(m as u32, k as u32); system.sources.len()],
        outcomes: Outcomes::default(),
        gone: Vec::new(),
        times: Times::default(),
    };
    Ok(Box::new(MkFirm { order, dispatch: Dispatch::default(), alarm: Alarm::default() }))
}

impl Policy for MkFirm {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.settle(view);
        self.order.outcomes.welcome(view);
        self.order.give_up(view, actions);
        self.dispatch.run(view, actions, &mut self.order);
        self.order.outcomes.note_running(view, actions);
        // Work that is late gives way to any other, which waits.
        if !self.dispatch.waiting().is_empty()
            && let Some(at) = self.order.next_deadline(view.now())
        {
            self.alarm.set(view.now(), at, actions);
        }
    }
}

/// What became of the last jobs of a source, and what follows from it.
#[derive(Clone, Copy, Debug)]
struct Stream {
    m: u32,
    k: u32,
    /// A bit for each job, set if it was on time; the lowest is the last job's. At first all are.
    history: u64,
    /// How many jobs it would have to lose in a row for fewer than m of the last k to be on time; 0: so it is already.
    distance: u32,
}

impl Stream {
    fn new(m: u32, k: u32) -> Self {
        Self { m, k, history: u64::MAX, distance: distance(u64::MAX, m, k) }
    }

    fn push(&mut self, on_time: bool) {
        self.history = self.history << 1 | u64::from(on_time);
        self.distance = distance(self.history, self.m, self.k);
    }
}

/// k - l + 1, where l is the position of the m-th last job that was on time, the last job's being 1; 0 if it is not among the last k.
fn distance(history: u64, m: u32, k: u32) -> u32 {
    let before = (1..m).fold(history, |rest, _| rest & rest.saturating_sub(1));
    k.saturating_sub(before.trailing_zeros())
}

/// By distance and due time.
#[derive(Clone, Debug)]
struct Distances {
    preemptive: bool,
    /// By source.
    streams: Vec<Stream>,
    outcomes: Outcomes<Mark>,
    /// Jobs that this decision drops.
    gone: Vec<JobId>,
    times: Times,
}

/// What is known of a live job.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// Whether it cannot be on time any more, by nominal latencies; for one decision.
    hopeless: bool,
    /// Whether it is in its stream's history already, as a lost one.
    lost: bool,
}

/// Whether a job counts for its stream.
fn is_firm(view: &View<'_>, job: &Job) -> bool {
    job.deadline != Nanos::MAX && !view.system.sources[job.source].session
}

impl Distances {
    /// Learns what became of the jobs that have ended.
    fn settle(&mut self, view: &View<'_>) {
        let Self { outcomes, streams, .. } = self;
        outcomes.settle(view, |tracked, on_time| {
            if !tracked.more.lost {
                streams[tracked.source].push(on_time);
            }
        });
    }

    /// Notes which jobs are lost, and drops those that do not run: at their deadlines, or when they cannot be on time any more and
    /// their streams can spare them.
    fn give_up(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.gone.clear();
        for &stage in view.ready() {
            if self.is_hopeless(view, stage) {
                let job = view.stage(stage).job;
                for tracked in self.outcomes.jobs.iter_mut().filter(|tracked| tracked.job == job) {
                    tracked.more.hopeless = true;
                }
            }
        }
        for tracked in self.outcomes.jobs.iter_mut().filter(|tracked| !tracked.dropped) {
            let stream = &mut self.streams[tracked.source];
            let hopeless = std::mem::take(&mut tracked.more.hopeless);
            let idle = view.state.jobs[tracked.job].running == 0;
            if !(tracked.deadline <= view.now() || hopeless && idle && stream.distance > 1) {
                continue;
            }
            if !tracked.more.lost {
                tracked.more.lost = true;
                stream.push(false);
            }
            if idle {
                tracked.dropped = true;
                self.gone.push(tracked.job);
                actions.drop_job(tracked.job);
            }
        }
    }

    /// Whether a waiting stage's job would be late even if all of the rest ran at once, on the fastest processors.
    fn is_hopeless(&mut self, view: &View<'_>, stage: StageId) -> bool {
        let job = view.job(stage);
        if !is_firm(view, job) {
            return false;
        }
        let least = self.times.of(view, stage).iter().flatten().map(|rest| rest.stage).min().unwrap_or(Nanos::ZERO);
        view.now().saturating_add(least).saturating_add(view.node(stage).tail) > job.deadline
    }

    /// When the next job that runs becomes late.
    fn next_deadline(&self, now: Nanos) -> Option<Nanos> {
        if !self.preemptive {
            return None;
        }
        let running = self.outcomes.jobs.iter().filter(|tracked| tracked.running && tracked.deadline > now);
        running.map(|tracked| tracked.deadline).min()
    }
}

/// Where the distance stands in a key. Below it is the due time, of 4.5 years at most.
const DISTANCE: u32 = 57;

/// In the place of a distance: behind all streams with deadlines.
const BEHIND: u32 = 65;

impl Order for Distances {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let job = view.job(stage);
        let distance = if !is_firm(view, job) {
            BEHIND
        } else if job.deadline <= view.now() {
            // It runs, and is lost.
            return u64::MAX;
        } else {
            self.streams[job.source.index()].distance
        };
        u64::from(distance) << DISTANCE | view.due(stage).0.min((1 << DISTANCE) - 1)
    }

    fn considers(&self, view: &View<'_>, stage: StageId) -> bool {
        let job = view.job(stage);
        !(is_firm(view, job) && job.deadline <= view.now() || self.gone.contains(&view.stage(stage).job))
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{SourceId, StageId};
    use onbeat_core::policy::{Action, Policy};
    use onbeat_core::spec::Preemption;

    use super::{Stream, distance};
    use crate::test_rig::{Rig, ms, preempt, start};

    /// What becomes of a job that runs from `at` and ends at `done`; the policy is told.
    fn run(rig: &mut Rig, policy: &mut Box<dyn Policy>, source: SourceId, at: f64, done: f64) {
        rig.state.now = ms(at);
        let stage = rig.ready(source, at);
        assert_eq!(rig.decide_with(policy)[0], start(stage, 0));
        rig.state.now = ms(done);
        end(rig, stage);
        rig.decide_with(policy);
    }

    fn end(rig: &mut Rig, stage: StageId) {
        let job = rig.state.stages[stage].job;
        rig.state.ready.retain(|&s| s != stage);
        for processor in &mut rig.state.processors {
            processor.runs.retain(|run| run.stage != stage);
        }
        rig.state.stages.remove(stage);
        rig.state.jobs.remove(job);
    }

    fn dropped(rig: &Rig, stage: StageId) -> Action {
        Action::Drop { job: rig.state.stages[stage].job }
    }

    #[test]
    fn distances_of_histories_worked_by_hand() {
        // The last three jobs, the last one on the right: the second last that was on time is at l, and d = 3 - l + 1.
        for (history, expected) in [
            (0b111, 2), // l = 2
            (0b011, 2), // l = 2
            (0b110, 1), // l = 3
            (0b101, 1), // l = 3
            (0b100, 0), // one of three
            (0b010, 0),
            (0b001, 0),
            (0b000, 0),
        ] {
            assert_eq!(distance(history, 2, 3), expected, "{history:03b}");
            assert_eq!(distance(history | !0b111, 2, 3), expected, "what was before does not count: {history:03b}");
        }
        assert_eq!([distance(0b10, 1, 1), distance(0b01, 1, 1)], [0, 1]);
        assert_eq!([distance(u64::MAX, 1, 64), distance(u64::MAX, 64, 64)], [64, 1]);
        assert_eq!([distance(1 << 63, 1, 64), distance(0, 1, 64), distance(0, 64, 64)], [1, 0, 0]);
    }

    #[test]
    fn a_distance_is_how_many_losses_in_a_row_a_stream_can_take_before_it_fails() {
        for k in 1..=7 {
            for m in 1..=k {
                for history in 0..1_u64 << k {
                    let mut stream = Stream::new(m, k);
                    (0..k).rev().for_each(|i| stream.push(history >> i & 1 == 1));
                    let (counted, mut losses) = (stream.distance, 0);
                    while (stream.history & ((1 << k) - 1)).count_ones() >= m {
                        stream.push(false);
                        losses += 1;
                    }
                    assert_eq!(counted, losses, "({m}, {k}) {history:b}");
                }
            }
        }
    }

    #[test]
    fn after_a_loss_a_stream_goes_before_what_is_due_earlier() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(30.0), &[Some(4.0)]);
        let other = rig.stream("other", Some(10.0), &[Some(4.0)]);
        let chat = rig.session("chat", &[4.0], 1);
        let mut policy = rig.make("mk-firm");
        // Nothing is lost: by due time, and the session last, though it is due first.
        rig.system.sources[chat].ttft = Some(ms(1.0));
        let waiting = [rig.ready(chat, 0.0), rig.ready(camera, 0.0), rig.ready(other, 0.0)];
        assert_eq!(rig.decide_with(&mut policy)[0], start(waiting[2], 0));
        for stage in waiting {
            end(&mut rig, stage);
        }
        // One of the camera's is late.
        let mut policy = rig.make("mk-firm");
        run(&mut rig, &mut policy, camera, 100.0, 131.0);
        rig.state.now = ms(200.0);
        let relaxed = rig.running(other, 0, 200.0);
        rig.ready(camera, 200.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(relaxed)], "due at 230 and 1 from failing; the other 210, 2");
        assert_eq!(rig.decide("mk-firm"), [Action::Wake { at: ms(210.0) }], "without that loss it waits");
    }

    #[test]
    fn what_cannot_be_on_time_is_dropped_while_its_stream_can_spare_it() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(10.0), &[Some(4.0)]);
        let mut policy = rig.make("mk-firm");
        let (first, second) = (rig.ready(camera, 0.0), rig.ready(camera, 0.0));
        rig.state.now = ms(6.0);
        assert_eq!(rig.decide_with(&mut policy)[0], start(first, 0), "just in time");
        rig.state.now = ms(6.1);
        rig.reverse_ready();
        let actions = rig.decide_with(&mut policy);
        assert_eq!(actions, [dropped(&rig, first), start(second, 0)], "the older one; now no other can be spared");
        end(&mut rig, first);
        rig.state.now = ms(9.9);
        assert_eq!(rig.decide_with(&mut policy), [start(second, 0)]);
        rig.state.now = ms(10.0);
        assert_eq!(rig.decide_with(&mut policy), [dropped(&rig, second)]);
    }

    #[test]
    fn late_work_gives_way_when_something_waits() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(10.0), &[Some(4.0)]);
        let slow = rig.stream("slow", Some(90.0), &[Some(40.0)]);
        let mut policy = rig.make("mk-firm");
        let late = rig.running(camera, 0, 0.0);
        rig.state.now = ms(1.0);
        assert_eq!(rig.decide_with(&mut policy), [], "nothing waits");
        let patient = rig.ready(slow, 1.0);
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(10.0) }]);
        rig.state.now = ms(10.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(late)]);
        rig.stop(late);
        let job = rig.state.stages[late].job;
        rig.state.jobs[job].running = 0;
        assert_eq!(rig.decide_with(&mut policy), [dropped(&rig, late), start(patient, 0)]);
    }

    #[test]
    fn m_is_at_most_k() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        rig.stream("camera", Some(10.0), &[Some(4.0)]);
        let error = |text: &str| crate::make(text, &rig.system).expect_err("too large").to_string();
        assert_eq!(error("mk-firm:m=4"), "policy `mk-firm`: parameter `m` cannot be `4`; it takes at most k");
        assert!(error("mk-firm:k=65").contains("a whole number from 1 to 64"));
    }
}
