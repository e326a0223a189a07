//! No policy asks for what is not possible, whatever a system combines: slots, units, drafts, divided models, attention, caches by blocks
//! and in slower memory, variants, batches, idle-time work. And whatever it asks for, the invariants hold.

use onbeat_core::event::NoSink;
use onbeat_sim::{Checker, simulate};
use proptest::prelude::*;

use crate::mix::mixes;
use crate::support::system;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_policy_asks_for_the_impossible(mix in mixes(), seed in 0..1000_u64) {
        let system = system(&mix.toml());
        for info in onbeat_policy::all() {
            let sinks = (NoSink, Checker::new(&system));
            let policy = onbeat_policy::make(info.name, &system).unwrap();
            let (_, (_, checker)) = simulate(&system, policy, info.name, seed, sinks).unwrap_or_else(|error| panic!("{error}"));
            let wrong = checker.finish();
            prop_assert!(wrong.is_empty(), "{}: {wrong:#?}", info.name);
        }
    }
}
