//! `throttle`: each stream has one job in flight; of those that wait only the newest is kept. First come, first served otherwise.

use onbeat_core::id::{Id, JobId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;

use crate::dispatch::{Dispatch, Order};
use crate::parameters::Parameters;
use crate::registry::{PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "throttle",
    summary: "One job of a stream in flight, of the waiting ones only the newest kept; first come, first served between streams",
    group: "runtime",
    parameters: &[],
    reference: "MediaPipe's FlowLimiterCalculator and NNStreamer's (GStreamer's) leaky queues and tensor_rate throttling; the rule here is ours",
    build,
};

/// Throttling per stream.
#[derive(Clone, Debug)]
struct Throttle {
    order: FirstCome,
    dispatch: Dispatch,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the registry's signature; other policies have parameters that can be wrong"
)]
fn build(_: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let streams = vec![Stream::default(); system.sources.len()];
    Ok(Box::new(Throttle { order: FirstCome { streams }, dispatch: Dispatch::default() }))
}

/// The jobs of one source, for one decision.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Whether a job has started and not ended.
    in_flight: bool,
    /// The newest job that has not started, with its serial.
    newest: Option<(u64, JobId)>,
}

impl Policy for Throttle {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.streams.fill(Stream::default());
        for (id, job) in view.state.jobs.iter() {
            if view.system.sources[job.source].session {
                continue;
            }
            let stream = &mut self.order.streams[job.source.index()];
            if job.started {
                stream.in_flight = true;
                continue;
            }
            // Of this job and the newest before it, the older one goes.
            let older = match stream.newest {
                Some((serial, _)) if serial > job.serial => Some(id),
                before => {
                    stream.newest = Some((job.serial, id));
                    before.map(|(_, id)| id)
                }
            };
            if let Some(older) = older {
                actions.drop_job(older);
            }
        }
        self.dispatch.run(view, actions, &mut self.order);
    }
}

/// By readiness.
#[derive(Clone, Debug)]
struct FirstCome {
    /// By source.
    streams: Vec<Stream>,
}

impl Order for FirstCome {
    fn key(&mut self, _: &View<'_>, _: StageId) -> u64 {
        0
    }

    fn considers(&self, view: &View<'_>, stage: StageId) -> bool {
        let job = view.job(stage);
        if job.started || view.system.sources[job.source].session {
            return true;
        }
        let stream = &self.streams[job.source.index()];
        !stream.in_flight && stream.newest.is_some_and(|(serial, _)| serial == job.serial)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, start};

    #[test]
    fn one_job_in_flight_and_the_newest_of_the_others() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never), ("npu", Preemption::Never)]);
        let camera = rig.stream("camera", Some(10.0), &[Some(9.0), Some(4.0)]);
        let running = rig.running(camera, 1, 0.0);
        let old = rig.ready(camera, 1.0);
        let older = rig.ready(camera, 2.0);
        let newest = rig.ready(camera, 3.0);
        let drop = |stage| Action::Drop { job: rig.state.stages[stage].job };
        assert_eq!(rig.decide("throttle"), [drop(old), drop(older)], "the newest waits though the CPU is idle");
        rig.state.ready.retain(|&stage| stage == newest);
        for stage in [running, old, older] {
            rig.state.jobs.remove(rig.state.stages[stage].job);
        }
        rig.state.processors[onbeat_core::id::ProcessorId(1)].runs.clear();
        assert_eq!(rig.decide("throttle"), [start(newest, 1)]);
    }

    #[test]
    fn a_users_requests_are_not_dropped() {
        let mut rig = Rig::new(&[("gpu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 1);
        rig.running(chat, 0, 0.0);
        rig.ready(chat, 0.0);
        rig.ready(chat, 1.0);
        assert_eq!(rig.decide("throttle"), []);
    }
}
