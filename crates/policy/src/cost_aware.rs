//! `cost-aware`: EDF that keeps in memory what is dear to load for its size, and used: GreedyDual-Size-Frequency.

use onbeat_core::policy::{Actions, Policy, Shortage, View};
use onbeat_core::system::System;

use crate::dispatch::Dispatch;
use crate::edf::{EarliestDue, PREEMPTIVE, TokenAlarm};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::residency::{Candidates, Table, Uses, load_per_byte, table};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "cost-aware",
    summary: "Earliest due first; evicts weights by what loading them again would cost for their size and use",
    group: "generative",
    parameters: &[
        PREEMPTIVE,
        ParameterInfo {
            name: "frequency",
            default: "true",
            meaning: "true: weights count as often as they were used since they were loaded (GDSF); false: once (GreedyDual-Size)",
        },
    ],
    reference: "Cao and Irani, Cost-Aware WWW Proxy Caching Algorithms, USITS 1997 (GreedyDual-Size); Cherkasova, HP Laboratories HPL-98-69R1, 1998 (with frequency)",
    build,
};

/// Earliest due first, with GreedyDual-Size-Frequency for residency.
#[derive(Clone, Debug)]
struct CostAware {
    order: EarliestDue,
    dispatch: Dispatch,
    tokens: TokenAlarm,
    frequency: bool,
    /// Time to load, per byte.
    cost: Table<f64>,
    /// What is worth keeping: H.
    value: Table<f64>,
    /// Uses since it was loaded.
    count: Table<u32>,
    /// H of what was evicted last: L.
    inflation: f64,
    uses: Uses,
    candidates: Candidates,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    Ok(Box::new(CostAware {
        order: EarliestDue { preemptive: parameters.flag("preemptive")? },
        dispatch: Dispatch::default(),
        tokens: TokenAlarm::default(),
        frequency: parameters.flag("frequency")?,
        cost: load_per_byte(system),
        value: table(system, &0.0),
        count: table(system, &0),
        inflation: 0.0,
        uses: Uses::new(system),
        candidates: Candidates::default(),
    }))
}

impl Policy for CostAware {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.look(view);
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        self.look(view);
        let value = &self.value;
        if let Some(last) = self.candidates.evict(view, shortage, actions, |model, p| value[model][p]) {
            self.inflation = self.inflation.max(last);
        }
    }
}

impl CostAware {
    /// Renews the value of what was used: H = L + uses × cost / size.
    fn look(&mut self, view: &View<'_>) {
        let Self { uses, count, value, cost, inflation, frequency, .. } = self;
        uses.look(view, |model, p, used| {
            let count = &mut count[model][p];
            *count = if used.is_some() { count.saturating_add(1) } else { 0 };
            let weight = if *frequency { f64::from(*count) } else { 1.0 };
            value[model][p] = *inflation + weight * cost[model][p];
        });
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{ModelId, ProcessorId};
    use onbeat_core::policy::{Action, Actions, Policy, Shortage};
    use onbeat_core::spec::Preemption;
    use onbeat_core::units::{Bytes, Nanos};

    use crate::test_rig::{Rig, ms};

    /// Models of 100 bytes that take so long to load [ns], all in memory since the start; and one that is not.
    fn rig(loads: &[u64]) -> Rig {
        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        for (i, &load) in loads.iter().chain(&[100]).enumerate() {
            let source = rig.stream(&format!("s{i}"), Some(90.0), &[Some(4.0)]);
            let model = ModelId(i as u32);
            rig.system.models[model].weights = Bytes(100);
            let node = onbeat_core::id::NodeId(rig.system.sources[source].nodes.start);
            rig.system.nodes[node].costs[ProcessorId(0)].as_mut().expect("it runs there").load_ns = load;
        }
        rig.state.memory.resident[ModelId(loads.len() as u32)][ProcessorId(0)] = None;
        rig
    }

    fn evicted(rig: &mut Rig, policy: &mut Box<dyn Policy>, missing: u64) -> Vec<u32> {
        let wanted = onbeat_core::id::SourceId(rig.system.sources.len() as u32 - 1);
        let stage = rig.ready(wanted, 0.0);
        let mut actions = Actions::default();
        let shortage = Shortage { stage, processor: ProcessorId(0), missing: Bytes(missing) };
        policy.out_of_memory(&rig.view(), &shortage, &mut actions);
        let model = |action: &Action| match action {
            Action::Evict { model, .. } => model.0,
            other => panic!("{other:?}"),
        };
        actions.as_slice().iter().map(model).collect()
    }

    fn use_model(rig: &mut Rig, policy: &mut Box<dyn Policy>, model: u32, at: f64) {
        rig.state.memory.resident[ModelId(model)][ProcessorId(0)] = Some(ms(at));
        rig.decide_with(policy);
    }

    #[test]
    fn what_is_cheap_to_load_goes_first_however_recently_it_was_used() {
        let mut rig = rig(&[5000, 500]);
        let mut policy = rig.make("cost-aware");
        use_model(&mut rig, &mut policy, 1, 3.0);
        assert_eq!(evicted(&mut rig, &mut policy, 100), [1]);
        assert_eq!(evicted(&mut rig, &mut policy, 150), [1, 0]);
        assert_eq!(evicted(&mut rig, &mut policy, 300), [0; 0], "it would not help");
    }

    #[test]
    fn what_is_not_used_ages() {
        // H of the dear one: 50 per byte; each eviction of the cheap one, loaded anew, raises L by 5, until the cheap one is worth more.
        let mut rig = rig(&[5000, 500]);
        let mut policy = rig.make("cost-aware:frequency=false");
        rig.decide_with(&mut policy);
        let mut rounds = 0;
        while evicted(&mut rig, &mut policy, 100) == [1] {
            rig.state.memory.resident[ModelId(1)][ProcessorId(0)] = None;
            rig.decide_with(&mut policy);
            rounds += 1;
            use_model(&mut rig, &mut policy, 1, f64::from(rounds));
            assert!(rounds < 20);
        }
        // After k rounds the cheap one is worth 5 (k + 1): at k = 9 as much as the other, which was used longer ago.
        assert_eq!(rounds, 9);
    }

    #[test]
    fn frequent_use_counts() {
        let mut rig = rig(&[1000, 500]);
        let mut policy = rig.make("cost-aware");
        for at in 1..=3 {
            use_model(&mut rig, &mut policy, 1, f64::from(at));
        }
        assert_eq!(evicted(&mut rig, &mut policy, 100), [0], "10 against 3 × 5");
        let mut plain = rig.make("cost-aware:frequency=false");
        rig.state.memory.resident[ModelId(0)][ProcessorId(0)] = Some(Nanos::ZERO);
        rig.decide_with(&mut plain);
        assert_eq!(evicted(&mut rig, &mut plain, 100), [1], "10 against 5");
    }
}
