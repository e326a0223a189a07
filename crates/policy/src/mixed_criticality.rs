//! `mixed-criticality`: earliest virtual deadline first; when critical work is in danger, the rest runs lighter variants, and goes if that
//! is not enough.

use onbeat_core::id::{Id, JobId, SourceId, StageId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::suggest::closest;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::{Alarm, Dispatch, Order};
use crate::edf::PREEMPTIVE;
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::times::Times;
use crate::variants::Choices;

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "mixed-criticality",
    summary: "EDF with virtual deadlines for critical streams; in danger the optional ones run lighter variants, then go",
    group: "real-time",
    parameters: &[
        ParameterInfo {
            name: "critical",
            default: "",
            meaning: "streams and sessions that must not suffer, joined by `+`; none given: those with the highest priority",
        },
        ParameterInfo {
            name: "x",
            default: "auto",
            meaning: "factor on the relative deadlines of critical work, above 0 to 1; auto: EDF-VD's, from the utilisations",
        },
        ParameterInfo {
            name: "overrun",
            default: "2",
            meaning: "for `x=auto`: how much longer than expected critical work can take at worst, 1 to 1000",
        },
        ParameterInfo {
            name: "drop",
            default: "true",
            meaning: "true: optional streams' jobs are given up where lighter variants are not enough; false: never",
        },
        PREEMPTIVE,
    ],
    reference: "Baruah, Bonifaci, D'Angelo, Li, Marchetti-Spaccamela, van der Ster and Stougie, The Preemptive Uniprocessor Scheduling of Mixed-Criticality Implicit-Deadline Sporadic Task Systems, ECRTS 2012; with degraded service: Liu, Spasic, Chen, Guan, Liu, Stefanov and Yi, IEEE RTSS 2016",
    build,
};

/// `x` where the utilisations leave no room for one.
const X_OVERLOADED: f64 = 0.5;

/// Mixed criticality.
#[derive(Clone, Debug)]
struct MixedCriticality {
    order: Virtual,
    drops: bool,
    choices: Choices,
    times: Times,
    dispatch: Dispatch,
    alarm: Alarm,
    /// Ready stages: due, critical, least time [ns], job.
    demand: Vec<Demand>,
}

/// By virtual deadline.
#[derive(Clone, Debug)]
struct Virtual {
    preemptive: bool,
    /// By [`SourceId`].
    critical: Vec<bool>,
    /// Factor on the relative deadlines of critical work, as long as none is in danger.
    x: f64,
    /// Whether critical work is in danger.
    danger: bool,
}

/// A ready stage, as far as its deadline is concerned.
#[derive(Clone, Copy, Debug)]
struct Demand {
    due: Nanos,
    serial: u64,
    critical: bool,
    /// The least time that it takes [ns]; 0 once it is given up.
    least: f64,
    job: JobId,
    /// Whether it may be given up.
    optional: bool,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let critical = critical(parameters, system)?;
    let overrun = parameters.number("overrun", 1.0..=1000.0, "a number from 1 to 1000")?;
    let x = match parameters.text("x") {
        "auto" => scaling(system, &critical, overrun),
        _ => parameters.number("x", f64::MIN_POSITIVE..=1.0, "auto or a number above 0, at most 1")?,
    };
    let preemptive = parameters.flag("preemptive")?;
    Ok(Box::new(MixedCriticality {
        order: Virtual { preemptive, critical, x, danger: false },
        drops: parameters.flag("drop")?,
        choices: Choices::new(system),
        times: Times::default(),
        dispatch: Dispatch::default(),
        alarm: Alarm::default(),
        demand: Vec::new(),
    }))
}

/// Which sources are critical.
fn critical(parameters: &Parameters<'_>, system: &System) -> Result<Vec<bool>, PolicyError> {
    let text = parameters.text("critical");
    if text.is_empty() {
        let highest = system.sources.iter().map(|source| source.priority).max();
        return Ok(system.sources.iter().map(|source| Some(source.priority) == highest).collect());
    }
    let mut critical = vec![false; system.sources.len()];
    let names = || system.sources.iter().map(|source| source.name.as_str());
    for name in text.split('+').map(str::trim) {
        let Some(i) = names().position(|known| known == name) else {
            return Err(PolicyError::UnknownName {
                policy: INFO.name,
                parameter: "critical",
                kind: "stream or session",
                name: name.to_owned(),
                known: names().map(str::to_owned).collect(),
                suggestion: closest(name, names()).map(str::to_owned),
            });
        };
        critical[i] = true;
    }
    Ok(critical)
}

/// EDF-VD's factor on critical deadlines. With the utilisations of critical work as expected (H) and at worst (H′), and of optional work
/// (L): 1 if H′ + L ≤ 1, else H ÷ (1 − L).
fn scaling(system: &System, critical: &[bool], overrun: f64) -> f64 {
    let slots: f64 = system.platform.processors.iter().map(|p| f64::from(p.slots)).sum();
    let load = |(id, source): (SourceId, &onbeat_core::system::Source)| {
        let period = source.period().filter(|_| source.deadline.is_some()).map_or(f64::INFINITY, Nanos::as_f64);
        system.nodes_of(id).map(|node| system.nodes[node].best.as_f64()).sum::<f64>() / period / slots
    };
    let of = |wanted: bool| -> f64 {
        system.sources.enumerate().filter(|(id, _)| critical[id.index()] == wanted).map(load).sum()
    };
    let (high, low) = (of(true), of(false));
    let x = high / (1.0 - low);
    if overrun * high + low <= 1.0 {
        1.0
    } else if x > 0.0 && x <= 1.0 {
        x
    } else {
        X_OVERLOADED
    }
}

impl Policy for MixedCriticality {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.watch(view, actions);
        if self.switch(view, actions) {
            // It is asked again at once, and sees the variants then.
            return;
        }
        if self.order.danger && self.drops && self.shed(view, actions) {
            return;
        }
        self.dispatch.run(view, actions, &mut self.order);
    }
}

impl MixedCriticality {
    /// Critical work that is not done at its virtual deadline is in danger; the danger is over when no critical work is left.
    fn watch(&mut self, view: &View<'_>, actions: &mut Actions) {
        let (now, mut next, mut alive) = (view.now(), Nanos::MAX, false);
        for (_, live) in view.state.stages.iter() {
            let job = &view.state.jobs[live.job];
            if !self.order.is_critical(job.source) || live.ready_at == Nanos::MAX {
                continue;
            }
            alive = true;
            let due = if job.deadline == Nanos::MAX { continue } else { job.deadline };
            let by = shorten(job.release, due, self.order.x);
            if by <= now {
                self.order.danger = true;
            } else {
                next = next.min(by);
            }
        }
        if !alive {
            self.order.danger = false;
        } else if next < Nanos::MAX && !self.order.danger && self.order.x < 1.0 {
            self.alarm.set(now, next, actions);
        }
    }

    /// Gives optional work its lightest variants in danger, and its best ones otherwise. Whether anything was switched.
    fn switch(&mut self, view: &View<'_>, actions: &mut Actions) -> bool {
        let before = actions.as_slice().len();
        for &stage in view.ready() {
            let choices = self.choices.of(view, stage);
            let source = view.job(stage).source;
            if choices.is_empty() || self.order.is_critical(source) {
                continue;
            }
            let time = |choice: &&crate::variants::Choice| choice.fastest(view, stage).unwrap_or(Nanos::MAX);
            let wanted = if self.order.danger { choices.iter().min_by_key(time) } else { choices.first() };
            if let Some(wanted) = wanted.filter(|wanted| wanted.number != view.stage(stage).variant) {
                actions.switch(stage, wanted.number);
            }
        }
        actions.as_slice().len() > before
    }

    /// Gives up optional jobs that keep critical work from being on time, those that are due last first. Whether it gave up any.
    fn shed(&mut self, view: &View<'_>, actions: &mut Actions) -> bool {
        let (now, before) = (view.now(), actions.as_slice().len());
        let slots: f64 = view.processors().map(|p| f64::from(view.system.platform.processors[p].slots)).sum();
        self.demand.clear();
        for &stage in view.ready() {
            let (live, job) = (view.stage(stage), view.job(stage));
            let critical = self.order.is_critical(job.source);
            let least = self.times.of(view, stage).iter().flatten().map(|rest| rest.stage).min();
            let optional = !critical && job.deadline != Nanos::MAX && job.running == 0;
            let (due, serial, least) = (view.due(stage), live.serial, least.unwrap_or(Nanos::ZERO).as_f64());
            self.demand.push(Demand { due, serial, critical, least, job: live.job, optional });
        }
        self.demand.sort_unstable_by_key(|demand| (demand.due, demand.serial));
        let running = view.processors().flat_map(|p| &view.occupancy(p).runs);
        let busy: f64 = running.map(|run| run.expected_end.saturating_sub(now).as_f64()).sum();
        for i in 0..self.demand.len() {
            let Demand { due, critical, least, .. } = self.demand[i];
            let slack = due.saturating_sub(now).as_f64();
            // What is late in any case is nobody's reason to give something up.
            if !critical || due == Nanos::MAX || slack < least {
                continue;
            }
            loop {
                let ahead: f64 = busy + self.demand[..i].iter().map(|demand| demand.least).sum::<f64>();
                let last = self.demand[..i].iter().rposition(|demand| demand.optional && demand.least > 0.0);
                let Some(last) = last.filter(|_| ahead / slots + least > slack) else { break };
                let job = self.demand[last].job;
                actions.drop_job(job);
                self.demand.iter_mut().filter(|demand| demand.job == job).for_each(|demand| demand.least = 0.0);
            }
        }
        actions.as_slice().len() > before
    }
}

/// A relative deadline times `x`, from the release.
fn shorten(release: Nanos, due: Nanos, x: f64) -> Nanos {
    release.saturating_add(Nanos::from_ns_f64(due.saturating_sub(release).as_f64() * x))
}

impl Virtual {
    fn is_critical(&self, source: SourceId) -> bool {
        self.critical[source.index()]
    }
}

impl Order for Virtual {
    fn key(&mut self, view: &View<'_>, stage: StageId) -> u64 {
        let (due, job) = (view.due(stage), view.job(stage));
        let shortened = !self.danger && due != Nanos::MAX && self.is_critical(job.source);
        if shortened { shorten(job.release, due, self.x).0 } else { due.0 }
    }

    fn preemption_margin(&self) -> Option<u64> {
        self.preemptive.then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::policy::Action;
    use onbeat_core::spec::Preemption;

    use crate::test_rig::{Rig, ms, start};

    #[test]
    fn the_factor_is_that_of_edf_vd() {
        let mut rig = Rig::new(&[("cpu", Preemption::Anytime)]);
        // As expected 2 / 10, at worst 7 / 10; optional 4 / 10: 0.7 + 0.4 > 1, hence x = 0.2 / 0.6.
        let control = rig.stream("control", Some(10.0), &[Some(2.0)]);
        rig.stream("picture", Some(10.0), &[Some(4.0)]);
        let x = |overrun| super::scaling(&rig.system, &[true, false], overrun);
        assert!((x(3.5) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(x(3.0), 1.0, "0.6 + 0.4 fit without virtual deadlines");
        let _ = control;
    }

    #[test]
    fn critical_work_goes_by_its_virtual_deadline() {
        let mut rig = Rig::new(&[("cpu", Preemption::Anytime)]);
        let control = rig.stream("control", Some(10.0), &[Some(2.0)]);
        let picture = rig.stream("picture", Some(8.0), &[Some(4.0)]);
        let (control, picture) = (rig.ready(control, 0.0), rig.ready(picture, 0.0));
        // Due at 8 and at 10; virtually at 5.
        assert_eq!(rig.decide("edf"), [start(picture, 0)]);
        let wake = Action::Wake { at: ms(5.0) };
        assert_eq!(rig.decide("mixed-criticality:critical=control,x=0.5"), [wake, start(control, 0)]);
    }

    #[test]
    fn in_danger_optional_work_gets_lighter_then_goes() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never)]);
        let control = rig.stream("control", Some(20.0), &[Some(8.0)]);
        let picture = rig.stream("picture", Some(18.0), &[Some(7.0)]);
        rig.variant(picture, &[Some(3.0)], 0.9);
        let mut policy = rig.make("mixed-criticality:critical=control,x=0.5");
        let control = rig.ready(control, 0.0);
        rig.state.now = ms(9.0);
        let frame = rig.ready(picture, 0.0);
        let frame_job = rig.state.stages[frame].job;
        let wake = Action::Wake { at: ms(10.0) };
        assert_eq!(rig.decide_with(&mut policy), [wake, start(control, 0)], "virtually due at 10, the frame at 18");
        rig.state.now = ms(10.0);
        assert_eq!(rig.decide_with(&mut policy), [Action::Switch { stage: frame, variant: 1 }]);
        rig.switch(frame, 1);
        // 3 + 8 do not fit before 20, from 10 on: the frame goes.
        assert_eq!(rig.decide_with(&mut policy), [Action::Drop { job: frame_job }]);
        let mut patient = rig.make("mixed-criticality:critical=control,x=0.5,drop=false");
        assert_eq!(rig.decide_with(&mut patient), [start(frame, 0)], "due first");
    }

    #[test]
    fn when_critical_work_is_done_optional_work_is_good_again() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never)]);
        let control = rig.stream("control", Some(20.0), &[Some(2.0)]);
        let picture = rig.stream("picture", Some(30.0), &[Some(7.0)]);
        rig.variant(picture, &[Some(3.0)], 0.9);
        let mut policy = rig.make("mixed-criticality:critical=control,x=0.5");
        let late = rig.ready(control, 0.0);
        let frame = rig.ready(picture, 0.0);
        rig.state.now = ms(10.0);
        assert_eq!(rig.decide_with(&mut policy), [Action::Switch { stage: frame, variant: 1 }]);
        rig.switch(frame, 1);
        let job = rig.state.stages[late].job;
        rig.state.ready.retain(|&stage| stage != late);
        rig.state.stages.remove(late);
        rig.state.jobs.remove(job);
        assert_eq!(rig.decide_with(&mut policy), [Action::Switch { stage: frame, variant: 0 }]);
    }

    #[test]
    fn unknown_names_are_mistakes() {
        let mut rig = Rig::new(&[("cpu", Preemption::Never)]);
        rig.stream("control", Some(20.0), &[Some(2.0)]);
        assert!(crate::make("mixed-criticality:critical=contrl", &rig.system).is_err());
    }
}
