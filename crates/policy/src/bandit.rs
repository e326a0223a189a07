//! `bandit`: EDF that learns, epoch by epoch, which weights are worth their memory, and explores those that it knows little about.

use onbeat_core::id::{Id, ModelId, ProcessorId};
use onbeat_core::policy::{Actions, Policy, Shortage, View};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::dispatch::Dispatch;
use crate::edf::{EarliestDue, PREEMPTIVE, TokenAlarm};
use crate::parameters::Parameters;
use crate::registry::{ParameterInfo, PolicyError, PolicyInfo};
use crate::residency::{Candidates, Table, Uses, load_per_byte, table};

pub(crate) const INFO: PolicyInfo = PolicyInfo {
    name: "bandit",
    summary: "Earliest due first; learns by upper confidence bounds which weights and adapters are worth their memory",
    group: "generative",
    parameters: &[
        PREEMPTIVE,
        ParameterInfo {
            name: "epoch_ms",
            default: "1000",
            meaning: "length of an epoch, after which what was learnt is brought up to date, in milliseconds, above 0",
        },
        ParameterInfo {
            name: "exploration",
            default: "0.5",
            meaning: "weight of what is not known, from 0 (none) to 1000",
        },
        ParameterInfo {
            name: "discount",
            default: "0.98",
            meaning: "what an epoch counts in comparison with the next one, above 0 and at most 1 (1: nothing is forgotten)",
        },
    ],
    reference: "Li and Li, POLAR: Online Learning for LoRA Adapter Caching and Routing in Edge LLM Serving, arXiv 2604.16583 (abstract); Garivier and Moulines, On Upper-Confidence Bound Policies for Switching Bandit Problems, ALT 2011",
    build,
};

/// Epochs without an event after which what was learnt counts as forgotten; bounds the cost of a decision.
const EPOCHS_MAX: u64 = 512;

/// What is known of one arm: weights on a processor.
#[derive(Clone, Copy, Debug, Default)]
struct Arm {
    /// Discounted sum of rewards, and of epochs in which they were observed.
    reward: f64,
    epochs: f64,
    /// Uses in the current epoch.
    uses: u32,
    /// Whether it was in memory in the current epoch.
    present: bool,
}

/// Earliest due first, with a bandit for residency.
#[derive(Clone, Debug)]
struct Bandit {
    order: EarliestDue,
    dispatch: Dispatch,
    tokens: TokenAlarm,
    epoch: Nanos,
    exploration: f64,
    discount: f64,
    /// Number of the current epoch.
    current: u64,
    /// Discounted number of epochs that have passed.
    passed: f64,
    /// Time to load, per byte.
    cost: Table<f64>,
    arms: Table<Arm>,
    uses: Uses,
    candidates: Candidates,
}

fn build(parameters: &Parameters<'_>, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let epoch_ms =
        parameters.number("epoch_ms", f64::MIN_POSITIVE..=3_600_000.0, "a number of milliseconds above 0")?;
    Ok(Box::new(Bandit {
        order: EarliestDue { preemptive: parameters.flag("preemptive")? },
        dispatch: Dispatch::default(),
        tokens: TokenAlarm::default(),
        epoch: Nanos::from_ms(epoch_ms).max(Nanos(1)),
        exploration: parameters.factor("exploration")?,
        discount: parameters.number("discount", f64::MIN_POSITIVE..=1.0, "a number above 0 and at most 1")?,
        current: 0,
        passed: 0.0,
        cost: load_per_byte(system),
        arms: table(system, &Arm::default()),
        uses: Uses::new(system),
        candidates: Candidates::default(),
    }))
}

impl Policy for Bandit {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        self.look(view);
        self.dispatch.run(view, actions, &mut self.order);
        self.tokens.set(view, &self.dispatch, actions);
    }

    fn out_of_memory(&mut self, view: &View<'_>, shortage: &Shortage, actions: &mut Actions) {
        self.look(view);
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.evict(view, shortage, actions, |model, p| self.index(view.system, model, p));
        self.candidates = candidates;
    }
}

impl Bandit {
    /// Closes epochs that have passed, and counts uses.
    fn look(&mut self, view: &View<'_>) {
        let now = view.now().0 / self.epoch.0;
        let gone = now - self.current;
        for _ in 0..gone.min(EPOCHS_MAX) {
            self.close_epoch(view);
        }
        self.current = now;
        let Self { uses, arms, .. } = self;
        uses.look(view, |model, p, used| {
            let arm = &mut arms[model][p];
            arm.present = true;
            arm.uses += u32::from(used.is_some());
        });
    }

    /// The reward of an arm that was in memory is the number of its uses: as often, it did not have to be loaded.
    fn close_epoch(&mut self, view: &View<'_>) {
        self.passed = self.discount * self.passed + 1.0;
        for (model, on) in view.state.memory.resident.enumerate() {
            for (p, resident) in on.enumerate() {
                let arm = &mut self.arms[model][p];
                arm.reward *= self.discount;
                arm.epochs *= self.discount;
                if arm.present || resident.is_some() {
                    arm.reward += f64::from(arm.uses);
                    arm.epochs += 1.0;
                }
                (arm.uses, arm.present) = (0, false);
            }
        }
    }

    /// Upper confidence bound of the loading time saved per epoch and byte: what an arm is worth its memory.
    fn index(&self, system: &System, model: ModelId, p: ProcessorId) -> f64 {
        debug_assert!(model.index() < system.models.len(), "the table has a row for every model");
        let arm = &self.arms[model][p];
        let cost = self.cost[model][p];
        // The epoch under way counts, too: what is used for the first time is known by that use.
        let epochs = arm.epochs + 1.0;
        let mean = (arm.reward + f64::from(arm.uses)) / epochs;
        let unknown = (libm::log(self.passed + 1.0).max(0.0) / epochs).sqrt();
        cost * (mean + self.exploration * unknown)
    }
}

#[cfg(test)]
mod tests {
    use onbeat_core::id::{ModelId, NodeId, ProcessorId, SourceId};
    use onbeat_core::policy::{Action, Actions, Policy, Shortage};
    use onbeat_core::spec::Preemption;
    use onbeat_core::units::Bytes;

    use crate::test_rig::{Rig, ms};

    /// Three models of 100 bytes that take 100 ns to load; the third is not in memory.
    fn rig() -> Rig {
        let mut rig = Rig::new(&[("npu", Preemption::Segment)]);
        for i in 0..3 {
            let source = rig.stream(&format!("s{i}"), Some(90.0), &[Some(4.0)]);
            rig.system.models[ModelId(i)].weights = Bytes(100);
            let node = NodeId(rig.system.sources[source].nodes.start);
            rig.system.nodes[node].costs[ProcessorId(0)].as_mut().expect("it runs there").load_ns = 100;
        }
        rig.state.memory.resident[ModelId(2)][ProcessorId(0)] = None;
        rig
    }

    fn evicted(rig: &mut Rig, policy: &mut Box<dyn Policy>) -> Action {
        let stage = rig.ready(SourceId(2), 0.0);
        let mut actions = Actions::default();
        let shortage = Shortage { stage, processor: ProcessorId(0), missing: Bytes(100) };
        policy.out_of_memory(&rig.view(), &shortage, &mut actions);
        actions.as_slice()[0]
    }

    fn use_model(rig: &mut Rig, policy: &mut Box<dyn Policy>, model: u32, at: f64) {
        rig.state.now = ms(at);
        rig.state.memory.resident[ModelId(model)][ProcessorId(0)] = Some(ms(at));
        rig.decide_with(policy);
    }

    fn evict(model: u32) -> Action {
        Action::Evict { model: ModelId(model), processor: ProcessorId(0) }
    }

    #[test]
    fn what_is_used_often_stays_even_if_something_else_was_used_last() {
        let mut rig = rig();
        let mut policy = rig.make("bandit");
        for i in 1..=20 {
            use_model(&mut rig, &mut policy, 0, f64::from(i) * 300.0);
        }
        use_model(&mut rig, &mut policy, 1, 6001.0);
        assert_eq!(evicted(&mut rig, &mut policy), evict(1));
    }

    #[test]
    fn it_forgets() {
        let mut rig = rig();
        let mut policy = rig.make("bandit:exploration=0,discount=0.5");
        for i in 1..=20 {
            use_model(&mut rig, &mut policy, 0, f64::from(i) * 300.0);
        }
        // Ten epochs later the other one is in use.
        for i in 1..=20 {
            use_model(&mut rig, &mut policy, 1, 6000.0 + f64::from(i) * 1000.0);
        }
        assert_eq!(evicted(&mut rig, &mut policy), evict(0));
    }

    #[test]
    fn what_is_not_known_is_given_a_chance() {
        let mut rig = rig();
        let mut bold = rig.make("bandit:exploration=100");
        let mut shy = rig.make("bandit:exploration=0");
        rig.state.memory.resident[ModelId(1)][ProcessorId(0)] = None;
        for policy in [&mut bold, &mut shy] {
            for i in 1..=20 {
                use_model(&mut rig, policy, 0, f64::from(i) * 1000.0);
            }
            rig.state.memory.resident[ModelId(0)][ProcessorId(0)] = Some(ms(0.0));
        }
        // The second one has just been loaded for the first time.
        rig.state.memory.resident[ModelId(0)][ProcessorId(0)] = Some(ms(20_000.0));
        rig.state.memory.resident[ModelId(1)][ProcessorId(0)] = Some(ms(20_000.0));
        assert_eq!(evicted(&mut rig, &mut bold), evict(0));
        rig.state.ready.clear();
        use_model(&mut rig, &mut shy, 0, 20_400.0);
        use_model(&mut rig, &mut shy, 0, 20_500.0);
        assert_eq!(evicted(&mut rig, &mut shy), evict(1));
    }
}
