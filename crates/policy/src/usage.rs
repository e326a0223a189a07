//! How long work has held processors since the last decision, for policies that charge for it; and how to cut work into slices where it
//! cannot be preempted.

use onbeat_core::id::{Id, ProcessorId, SourceId, StageId};
use onbeat_core::policy::{Action, Actions, View};
use onbeat_core::units::Nanos;

/// What has been running since the last decision. The buffers are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    since: Nanos,
    entries: Vec<Entry>,
    /// Entries by processor.
    counts: Vec<u32>,
}

/// A stage that holds a processor, alone or with others.
#[derive(Clone, Copy, Debug)]
struct Entry {
    stage: StageId,
    serial: u64,
    source: SourceId,
    processor: ProcessorId,
}

/// Time that a stage has held a processor; members of a batch share it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    pub(crate) stage: StageId,
    pub(crate) serial: u64,
    pub(crate) source: SourceId,
    pub(crate) time: Nanos,
}

impl Usage {
    /// What is to be charged since the last decision, in the order of processors.
    pub(crate) fn charges(&mut self, view: &View<'_>) -> impl Iterator<Item = Charge> {
        let elapsed = view.now().saturating_sub(self.since);
        self.since = view.now();
        let Self { entries, counts, .. } = &*self;
        entries.iter().map(move |entry| {
            let time = Nanos::from_ns_f64(elapsed.as_f64() * part(view, counts, entry.processor));
            Charge { stage: entry.stage, serial: entry.serial, source: entry.source, time }
        })
    }

    /// Notes what runs after a decision.
    pub(crate) fn note(&mut self, view: &View<'_>, actions: &Actions) {
        self.entries.clear();
        self.counts.clear();
        self.counts.resize(view.processors().len(), 0);
        for processor in view.processors() {
            for run in &view.occupancy(processor).runs {
                for stage in run.stages() {
                    self.push(view, stage, processor);
                }
            }
        }
        for action in actions.as_slice() {
            if let &Action::Start { stage, processor, .. } = action {
                self.push(view, stage, processor);
            }
        }
    }

    fn push(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) {
        let (serial, source) = (view.stage(stage).serial, view.job(stage).source);
        self.entries.push(Entry { stage, serial, source, processor });
        self.counts[processor.index()] += 1;
    }

    /// Stages that run after the decision, each with its processor and the part of the processor's time that is charged to it.
    pub(crate) fn running(&self, view: &View<'_>) -> impl Iterator<Item = (StageId, ProcessorId, f64)> {
        self.entries.iter().map(|entry| (entry.stage, entry.processor, part(view, &self.counts, entry.processor)))
    }
}

/// The part of a processor's time that each of its stages is charged for: all of it, unless more stages run than there are slots.
fn part(view: &View<'_>, counts: &[u32], processor: ProcessorId) -> f64 {
    let (slots, count) = (view.system.platform.processors[processor].slots, counts[processor.index()]);
    f64::from(slots.min(count)) / f64::from(count.max(1))
}

/// How many segments of a stage fit into a time on a processor that does not preempt, at least one; `None`: as many as there are, or
/// the processor preempts.
pub(crate) fn slice(view: &View<'_>, stage: StageId, processor: ProcessorId, time: Nanos) -> Option<u32> {
    if view.preemptible(processor) {
        return None;
    }
    let live = view.stage(stage);
    let (kind, cost) = view.cost(stage, processor)?.phases.get(usize::from(live.phase))?;
    let end = live.work.units(*kind).max(live.position);
    let next = cost.next_boundary(live.work, *kind, live.position).min(end);
    let (length, whole) = (next - live.position, end - live.position);
    let segment = cost.latency_ns(live.work, live.position, next);
    if length <= 0.0 || segment <= 0.0 {
        return None;
    }
    let fit = (time.as_f64() / segment).floor().clamp(1.0, 1e9);
    (fit * length < whole).then_some(fit as u32)
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::ProcessorId;
    use onbeat_core::policy::Actions;
    use onbeat_core::spec::Preemption;

    use super::{Usage, slice};
    use crate::test_rig::{Rig, ms};

    #[test]
    fn members_of_a_batch_share_the_time() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never), ("npu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0, 4.0], 2);
        let camera = rig.stream("camera", Some(10.0), &[None, Some(3.0)]);
        let (first, alone) = (rig.running_decode(chat, 0, 0.0), rig.ready(camera, 0.0));
        let second = rig.ready_decode(chat, 0.0);
        let mut usage = Usage::default();
        assert_eq!(usage.charges(&rig.view()).count(), 0);
        let mut actions = Actions::default();
        actions.start(second, ProcessorId(0));
        actions.start(alone, ProcessorId(1));
        usage.note(&rig.view(), &actions);
        rig.state.now = ms(6.0);
        let charged: Vec<_> = usage.charges(&rig.view()).map(|charge| (charge.stage, charge.time)).collect();
        assert_eq!(charged, [(first, ms(3.0)), (second, ms(3.0)), (alone, ms(6.0))]);
        assert!(usage.charges(&rig.view()).all(|charge| charge.time == ms(0.0)), "charged once");
    }

    #[test]
    fn slices_are_whole_segments() {
        let mut rig = Rig::new(&[("npu", Preemption::Never), ("gpu", Preemption::Segment)]);
        let chat = rig.session("chat", &[4.0, 4.0], 1);
        let decode = rig.ready_decode(chat, 0.0);
        let view = rig.view();
        assert_eq!(slice(&view, decode, ProcessorId(0), ms(11.0)), Some(2));
        assert_eq!(slice(&view, decode, ProcessorId(0), ms(1.0)), Some(1));
        assert_eq!(slice(&view, decode, ProcessorId(0), ms(400.0)), None, "100 steps of 4 ms are all that is left");
        assert_eq!(slice(&view, decode, ProcessorId(1), ms(11.0)), None);
    }
}
