//! `tbs`: earliest due first, where each request of a generative source is due by the total-bandwidth rule.

use onbeat_core::id::{Id, IdVec, SourceId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Dispatch, Order};
use crate::edf::TokenAlarm;
use crate::generative::is_generative;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "tbs",
    summary: "Earliest due first; each request of a generative source is due as early as its share of the processor allows",
    group: "real-time",
    parameters: &[
        ParameterInfo {
            name: "bandwidth",
            default: "0.2",
            meaning: "share of the processor that each generative source is given, above 0 and at most 1",
        },
        ParameterInfo {
            name: "bandwidths",
            default: "",
            meaning: "SOURCE:SHARE+SOURCE:SHARE: shares of single sources, above 0 and at most 1; what is not named has `bandwidth`",
        },
    ],
    reference: "Spuri and Buttazzo, Scheduling Aperiodic Tasks in Dynamic Priority Systems, Real-Time Systems 10(2), 1996 (total bandwidth server)",
    build,
};

/// Earliest due first, with total-bandwidth servers.
#[derive(Clone, Debug)]
struct Tbs {
    order: Requests,
    dispatch: Dispatch,
    tokens: TokenAlarm,
}

/// By due time, or the deadline that the server gave to the request.
#[derive(Clone, Debug)]
struct Requests {
    /// Shares of the processor, by source.
    bandwidths: IdVec<SourceId, f64>,
    /// The last deadline that each source's server has given; `None` for sources without a server.
    servers: Vec<Option<Nanos>>,
    /// Serial and deadline of each request, by [`StageId`].
    deadlines: Vec<(u64, Nanos)>,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let bandwidth = parameters.factor("bandwidth")?;
    if bandwidth <= 0.0 || bandwidth > 1.0 {
        return Err(PolicyError::BadValue {
            policy: INFO.name,
            parameter: "bandwidth",
            value: parameters.text("bandwidth").to_owned(),
            allowed: "a number above 0 and at most 1",
        });
    }
    let has_server = |source| is_generative(system, source);
    let allowed = "SOURCE:SHARE with a share above 0 and at most 1, several of them joined by +";
    let within = |share: f64| share > 0.0 && share <= 1.0;
    let own = ("generative source", allowed);
    let bandwidths = parameters.by_source("bandwidths", system, has_server, bandwidth, within, own)?;
    let servers = system.sources.ids().map(|source| has_server(source).then_some(Nanos::ZERO)).collect();
    let order = Requests { bandwidths, servers, deadlines: Vec::new() };
    Ok(Box::new(Tbs { order, dispatch: Dispatch::default(), tokens: TokenAlarm::default() }))
}

impl Policy for Tbs {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.order.admit(view);
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
    }
}

/// The deadline of a request that comes at `now`, takes `time`, and follows one with the deadline `last`.
fn deadline(now: Nanos, last: Nanos, time: Nanos, bandwidth: f64) -> Nanos {
    now.max(last).saturating_add(Nanos::from_ns_f64(time.as_f64() / bandwidth))
}

impl Requests {
    /// Gives deadlines to requests that have just come, in the order in which they became ready.
    fn admit(&mut self, view: &View<'_>) {
        for &stage in view.ready() {
            let source = view.job(stage).source;
            let Some(last) = self.servers[source.index()] else { continue };
            let serial = view.stage(stage).serial;
            if stage.index() >= self.deadlines.len() {
                self.deadlines.resize(stage.index() + 1, (u64::MAX, Nanos::ZERO));
            }
            if self.deadlines[stage.index()].0 != serial {
                let due = deadline(view.now(), last, view.remaining_best(stage), self.bandwidths[source]);
                self.deadlines[stage.index()] = (serial, due);
                self.servers[source.index()] = Some(due);
            }
        }
    }
}

impl Order for Requests {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        if self.servers[view.job(stage).source.index()].is_some()
            && let Some(&(serial, due)) = self.deadlines.get(stage.index())
            && serial == view.stage(stage).serial
        {
            return due.0;
        }
        view.due(stage).0
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::spec::Preemption;

    use super::deadline;
    use crate::test_rig::{Rig, ms, preempt, start};

    /// Buttazzo, Hard Real-Time Computing Systems, section "Total bandwidth server": a server of 0.25; requests of 1, 2 and 1 at 3, 9 and
    /// 14 are due at 7, 17 and 21.
    #[test]
    fn the_textbooks_deadlines() {
        let mut last = ms(0.0);
        for (arrival, time, published) in [(3.0, 1.0, 7.0), (9.0, 2.0, 17.0), (14.0, 1.0, 21.0)] {
            last = deadline(ms(arrival), last, ms(time), 0.25);
            assert_eq!(last, ms(published));
        }
    }

    #[test]
    fn a_request_keeps_its_deadline_and_the_next_one_queues_behind_it() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let chat = rig.session("chat", &[1.0], 1);
        let camera = rig.stream("camera", Some(450.0), &[Some(10.0)]);
        // 100 ms of prompt and 100 of answer, at half of the processor: due at 400 and 800.
        let first = rig.ready(chat, 0.0);
        let mut policy = rig.make("tbs:bandwidth=0.5");
        assert_eq!(rig.decide_with(&mut policy), [start(first, 0)]);
        let _second = rig.ready(chat, 0.0);
        let frame = rig.ready(camera, 0.0);
        assert_eq!(rig.decide_with(&mut policy), [start(first, 0)], "400, then the frame at 450, then 800");
        rig.state.ready.retain(|&stage| stage != first);
        assert_eq!(rig.decide_with(&mut policy), [start(frame, 0)]);
    }

    #[test]
    fn urgent_requests_take_over_from_frames() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let chat = rig.session("chat", &[1.0], 1);
        let camera = rig.stream("camera", Some(450.0), &[Some(90.0)]);
        let frame = rig.running(camera, 0, 0.0);
        rig.ready(chat, 0.0);
        assert_eq!(rig.decide("tbs:bandwidth=0.5"), [preempt(frame)]);
        assert_eq!(rig.decide("tbs"), [], "due at 200 / 0.2 = 1000");
    }

    #[test]
    fn sources_can_have_shares_of_their_own() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let (chat, notes) = (rig.session("chat", &[1.0], 1), rig.session("notes", &[1.0], 1));
        let (first, second) = (rig.ready(chat, 0.0), rig.ready(notes, 0.0));
        // 200 ms at 0.2: due at 1000; at 0.5: due at 400.
        assert_eq!(rig.decide("tbs"), [start(first, 0)]);
        assert_eq!(rig.decide("tbs:bandwidths=notes:0.5"), [start(second, 0)]);
        assert_eq!(rig.decide("tbs:bandwidth=0.5,bandwidths=notes:0.1+chat:0.3"), [start(first, 0)]);
        let error = |text: &str| crate::make(text, &rig.system).unwrap_err().to_string();
        assert!(error("tbs:bandwidths=notes:2").contains("at most 1"));
        assert!(error("tbs:bandwidths=chit:0.3").contains("did you mean `chat`?"));
    }

    #[test]
    fn a_share_is_a_part() {
        let rig = Rig::new(&[("npu", Preemption::Never)]);
        for text in ["tbs:bandwidth=0", "tbs:bandwidth=1.5"] {
            assert!(crate::make(text, &rig.system).unwrap_err().to_string().contains("at most 1"), "{text}");
        }
    }
}
