//! `cbs`: earliest due first, with a constant-bandwidth server for the work of each generative source.

use onbeat_core::id::{Id, IdVec, ProcessorId, SourceId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::generative::is_generative;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::usage::{Usage, slice};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "cbs",
    summary: "Earliest due first; each generative source has a reservation of processor time and cannot take more from the others",
    group: "real-time",
    parameters: &[
        ParameterInfo {
            name: "budget_ms",
            default: "20",
            meaning: "processor time that each generative source is given per period [ms], above 0 and at most the period",
        },
        ParameterInfo {
            name: "budgets_ms",
            default: "",
            meaning: "SOURCE:MS+SOURCE:MS: budgets of single sources [ms], above 0 and at most the period; what is not named has budget_ms",
        },
        ParameterInfo { name: "period_ms", default: "100", meaning: "period of the reservations [ms], up to 3600000" },
    ],
    reference: "Abeni and Buttazzo, Integrating Multimedia Applications in Hard Real-Time Systems, IEEE RTSS 1998",
    build,
};

/// Earliest due first, with servers.
#[derive(Clone, Debug)]
struct Cbs {
    order: Servers,
    dispatch: Dispatch,
    usage: Usage,
    alarm: Alarm,
}

/// By due time, or the deadline of the server.
#[derive(Clone, Debug)]
struct Servers {
    /// By source.
    budgets: IdVec<SourceId, Nanos>,
    period: Nanos,
    /// By source; `None` for sources that have no server.
    servers: Vec<Option<Server>>,
}

/// A constant-bandwidth server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Server {
    /// What is left of the budget [ns]. Negative when work was charged that could not be stopped in time.
    budget: i64,
    deadline: Nanos,
    /// Whether it has work.
    active: bool,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let (budget, period) = (parameters.milliseconds("budget_ms")?, parameters.milliseconds("period_ms")?);
    let possible = |budget: Nanos| budget > Nanos::ZERO && budget <= period;
    if !possible(budget) {
        return Err(PolicyError::BadValue {
            policy: INFO.name,
            parameter: "budget_ms",
            value: parameters.text("budget_ms").to_owned(),
            allowed: "a time above 0 and at most period_ms",
        });
    }
    let has_server = |source| is_generative(system, source);
    let allowed = "SOURCE:MS with a time above 0 and at most period_ms, several of them joined by +";
    let within = |ms: f64| ms <= period.as_ms() && possible(Nanos::from_ms(ms));
    let own = ("generative source", allowed);
    let budgets = parameters.by_source("budgets_ms", system, has_server, budget.as_ms(), within, own)?;
    let order = Servers {
        budgets: budgets.iter().map(|&ms| Nanos::from_ms(ms)).collect(),
        period,
        servers: system.sources.ids().map(|source| has_server(source).then(Server::default)).collect(),
    };
    Ok(Box::new(Cbs { order, dispatch: Dispatch::default(), usage: Usage::default(), alarm: Alarm::default() }))
}

/// No wake-up sooner than this; an overrun so long is charged all the same.
const GRAIN: Nanos = Nanos(10_000);

impl Policy for Cbs {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        let Servers { budgets, period, servers } = &mut self.order;
        for charge in self.usage.charges(view) {
            if let Some(server) = &mut servers[charge.source.index()] {
                server.charge(charge.time, budgets[charge.source], *period);
            }
        }
        self.order.activate(view);
        self.dispatch.run(view, actions, &mut self.order);
        self.usage.note(view, actions);
        if !self.dispatch.waiting().is_empty()
            && let Some(left) = self.exhaustion(view)
        {
            self.alarm.set(view.now(), view.now().saturating_add(left.max(GRAIN)), actions);
        }
    }
}

impl Cbs {
    /// Time until the first server that runs has used up its budget.
    fn exhaustion(&self, view: &View<'_>) -> Option<Nanos> {
        let sources = self.order.servers.iter().enumerate();
        let times = sources.filter_map(|(source, server)| {
            let running = self.usage.running(view).filter(|&(stage, _, _)| view.job(stage).source.index() == source);
            let rate: f64 = running.map(|(_, _, part)| part).sum();
            let left = (*server)?.budget as f64;
            (rate > 0.0).then(|| Nanos::from_ns_f64((left / rate).ceil()))
        });
        times.min()
    }
}

impl Server {
    /// Takes time off the budget; an empty budget is filled at once, at the price of a later deadline.
    fn charge(&mut self, time: Nanos, budget: Nanos, period: Nanos) {
        self.budget = self.budget.saturating_sub_unsigned(time.0);
        if self.budget <= 0 {
            let times = self.budget.unsigned_abs() / budget.0 + 1;
            self.budget = self.budget.saturating_add_unsigned(times.saturating_mul(budget.0));
            self.deadline = self.deadline.saturating_add(Nanos(times.saturating_mul(period.0)));
        }
    }

    /// Work arrives while the server has none: what is left of budget and deadline is kept only if it is no more than the reservation.
    fn arrive(&mut self, now: Nanos, budget: Nanos, period: Nanos) {
        let left = u128::from(self.deadline.saturating_sub(now).0);
        let have = u128::try_from(self.budget).unwrap_or(0);
        if have * u128::from(period.0) >= left * u128::from(budget.0) {
            self.budget = i64::try_from(budget.0).expect("a budget is no longer than an hour");
            self.deadline = now.saturating_add(period);
        }
    }
}

impl Servers {
    /// Finds out which servers have work, and tells those to which it has just come.
    fn activate(&mut self, view: &View<'_>) {
        for (source, (server, &budget)) in self.servers.iter_mut().zip(self.budgets.iter()).enumerate() {
            let Some(server) = server else { continue };
            let of_source = |stage: StageId| view.job(stage).source.index() == source;
            let runs = || view.processors().flat_map(|p| &view.occupancy(p).runs);
            let active =
                view.ready().iter().any(|&stage| of_source(stage)) || runs().any(|run| run.stages().any(of_source));
            if active && !server.active {
                server.arrive(view.now(), budget, self.period);
            }
            server.active = active;
        }
    }
}

impl Order for Servers {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let server = &self.servers[view.job(stage).source.index()];
        server.as_ref().map_or_else(|| view.due(stage).0, |server| server.deadline.0)
    }

    fn preemption_margin(&self) -> Option<u64> {
        Some(0)
    }

    fn portion(&mut self, view: &View<'_>, stage: StageId, processor: ProcessorId) -> Option<u32> {
        let server = self.servers[view.job(stage).source.index()].as_ref()?;
        slice(view, stage, processor, Nanos(server.budget.max(0).unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::{Action, Limit};
    use onbeat_core::spec::Preemption;

    use super::Server;
    use crate::test_rig::{Rig, ms, preempt, start};

    #[test]
    fn the_rules_of_the_server() {
        let (q, t) = (ms(3.0), ms(8.0));
        let mut server = Server::default();
        // The first work comes at 2: a full budget, due at 10.
        server.arrive(ms(2.0), q, t);
        assert_eq!(server, Server { budget: 3_000_000, deadline: ms(10.0), active: false });
        // 4 ms of work: the budget is used up after 3, filled again at once, due at 18.
        server.charge(ms(4.0), q, t);
        assert_eq!(server, Server { budget: 2_000_000, deadline: ms(18.0), active: false });
        // More work at 12: 3/8 of the 6 ms until 18 is 2.25, more than the 2 that are left: they are kept.
        let mut early = server;
        early.arrive(ms(12.0), q, t);
        assert_eq!(early, server);
        // At 13 it would be 3/8 of 5, which is 1.875: 2 ms until 18 would be more than was reserved, so all is new, due at 21.
        server.arrive(ms(13.0), q, t);
        assert_eq!(server, Server { budget: 3_000_000, deadline: ms(21.0), active: false });
    }

    #[test]
    fn a_generative_source_is_due_by_its_server() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let chat = rig.session("chat", &[4.0], 1);
        let camera = rig.stream("camera", Some(130.0), &[Some(10.0)]);
        let request = rig.ready(chat, 0.0);
        let mut policy = rig.make("cbs");
        assert_eq!(rig.decide_with(&mut policy), [start(request, 0)]);
        rig.state.ready.clear();
        let request = rig.running(chat, 0, 0.0);
        let frame = rig.ready(camera, 0.0);
        // The server is due at 100, the frame at 130; the budget of 20 ms lasts until 20.
        assert_eq!(rig.decide_with(&mut policy), [Action::Wake { at: ms(20.0) }]);
        rig.state.now = ms(20.0);
        assert_eq!(rig.decide_with(&mut policy), [preempt(request)], "now the server is due at 200");
        rig.stop(request);
        assert_eq!(rig.decide_with(&mut policy), [start(frame, 0)]);
    }

    #[test]
    fn sources_can_have_budgets_of_their_own() {
        let mut rig = Rig::new(&[("gpu", Preemption::Anytime)]);
        let (chat, notes) = (rig.session("chat", &[4.0], 1), rig.session("notes", &[4.0], 1));
        let camera = rig.stream("camera", Some(130.0), &[Some(10.0)]);
        for (source, budget) in [(chat, 30.0), (notes, 10.0)] {
            let request = rig.running(source, 0, 0.0);
            let frame = rig.ready(camera, 0.0);
            let actions = rig.decide("cbs:budget_ms=10,budgets_ms=chat:30");
            assert_eq!(actions, [Action::Wake { at: ms(budget) }]);
            rig.state.processors[onbeat_core::id::ProcessorId(0)].runs.clear();
            rig.state.ready.clear();
            for stage in [request, frame] {
                rig.state.stages.remove(stage);
            }
        }
        let error = |text: &str| crate::make(text, &rig.system).unwrap_err().to_string();
        assert!(error("cbs:budgets_ms=chat:101").contains("at most period_ms"));
        assert!(error("cbs:budgets_ms=chat").contains("SOURCE:MS"));
        let unknown = error("cbs:budgets_ms=note:5");
        assert!(unknown.contains("no generative source `note` (did you mean `notes`?); there are chat, notes"));
        assert!(error("cbs:budgets_ms=camera:5").contains("no generative source"), "it has no server");
    }

    #[test]
    fn where_nothing_is_preempted_a_run_is_as_long_as_the_budget() {
        let mut rig = Rig::new(&[("npu", Preemption::Never)]);
        let chat = rig.session("chat", &[4.0], 1);
        let stage = rig.ready_decode(chat, 0.0);
        let actions = rig.decide("cbs");
        assert!(
            matches!(actions[..], [Action::Start { stage: s, limit: Some(Limit::Segments(5)), .. }] if s == stage),
            "{actions:?}"
        );
    }

    #[test]
    fn a_budget_is_a_part_of_the_period() {
        let rig = Rig::new(&[("npu", Preemption::Never)]);
        for text in ["cbs:budget_ms=0", "cbs:budget_ms=101", "cbs:period_ms=10"] {
            assert!(crate::make(text, &rig.system).unwrap_err().to_string().contains("at most period_ms"), "{text}");
        }
    }
}
