//! Cutting and extracting, on graphs of any form.

use std::collections::BTreeSet;

use onbeat_onnx::ElementType::F32;
use onbeat_onnx::{Builder, Flow, Model, extract};
use proptest::prelude::*;

/// A graph whose nodes take what came before them, the weight, or an input; some values are outputs.
fn graph(nodes: &[(u8, u8, bool)]) -> Model {
    let mut g = Builder::new("g", 17);
    let mut values = vec![g.f32("w", &[], vec![1.0]), g.input("x", F32, &[]), g.input("y", F32, &[])];
    let mut outputs = Vec::new();
    for &(a, b, output) in nodes {
        let pick = |i: u8| values[usize::from(i) % values.len()].clone();
        let made = g.node_n("Odd", &[&pick(a), &pick(b)], &[], 2);
        if output {
            outputs.push(made[0].clone());
        }
        values.extend(made);
    }
    outputs.push(values[values.len() - 1].clone());
    for name in BTreeSet::from_iter(outputs) {
        g.output(&name, F32, &[]);
    }
    g.into_model()
}

proptest! {
    #[test]
    fn pieces_in_turn_make_everything_from_what_is_there(
        nodes in prop::collection::vec((any::<u8>(), any::<u8>(), prop::bool::weighted(0.1)), 1..40),
        costs in prop::collection::vec(0.0..10.0_f64, 40),
        segments in 1_usize..8,
        forced in prop::collection::btree_set(1_usize..40, 0..6),
    ) {
        let model = graph(&nodes);
        let flow = Flow::of(&model).unwrap();
        let costs = &costs[..flow.len()];
        let chosen = flow.cut(segments, costs);
        prop_assert!(chosen.len() < segments);
        let forced: Vec<usize> = forced.into_iter().filter(|&cut| cut < flow.len()).collect();
        for cuts in [chosen, forced] {
            prop_assert!(cuts.is_sorted());
            let pieces = flow.pieces(&cuts);
            prop_assert_eq!(pieces.len(), cuts.len() + 1);
            let mut there: BTreeSet<String> = model.inputs().into_iter().map(|port| port.name).collect();
            let mut done = Vec::new();
            for (i, piece) in pieces.iter().enumerate() {
                let inputs: Vec<&str> = piece.inputs.iter().map(|it| it.name.as_str()).collect();
                let outputs: Vec<&str> = piece.outputs.iter().map(|it| it.name.as_str()).collect();
                for name in &inputs {
                    prop_assert!(there.contains(*name), "piece {} needs {}, which is gone", i, name);
                }
                // What is taken away is never needed again: a later piece would miss it above.
                for input in piece.inputs.iter().filter(|input| !input.later && !input.output) {
                    there.remove(&input.name);
                }
                there.extend(piece.outputs.iter().map(|it| it.name.clone()));
                done.extend(piece.nodes.iter().copied());
                // The piece can be taken out, and what it makes needs nothing else.
                let part = extract(&model, &inputs, &outputs).unwrap();
                prop_assert_eq!(part.outputs().len(), outputs.len());
                Flow::of(&part).unwrap();
                prop_assert_eq!(Model::read(part.to_bytes()).unwrap(), part);
            }
            for output in model.outputs() {
                prop_assert!(there.contains(&output.name), "{} is missing in the end", output.name);
            }
            done.sort_unstable();
            let count = done.len();
            done.dedup();
            prop_assert_eq!(done.len(), count, "a node is in two pieces");
        }
    }

    #[test]
    fn the_longest_segment_is_nearly_as_short_as_it_can_be(
        costs in prop::collection::vec(0.1..10.0_f64, 2..30),
        segments in 1_usize..6,
    ) {
        let mut g = Builder::new("chain", 17);
        let mut x = g.input("x", F32, &[]);
        for _ in &costs {
            x = g.node("Neg", &[&x], &[]);
        }
        g.output(&x, F32, &[]);
        let flow = Flow::of(&g.into_model()).unwrap();
        let cuts = flow.cut(segments, &costs);
        let ends: Vec<usize> = [0].into_iter().chain(cuts.iter().copied()).chain([costs.len()]).collect();
        let longest = ends.windows(2).map(|ends| costs[ends[0]..ends[1]].iter().sum::<f64>()).fold(0.0, f64::max);
        let best = best_longest(&costs, segments);
        prop_assert!(longest <= best * 1.1 + 1e-6, "{} instead of {}", longest, best);
    }

    #[test]
    fn bytes_of_any_kind_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(model) = Model::read(bytes) {
            let _ = Flow::of(&model);
        }
    }
}

/// By trying every first cut.
fn best_longest(costs: &[f64], segments: usize) -> f64 {
    let whole: f64 = costs.iter().sum();
    if segments == 1 {
        return whole;
    }
    let rest = |cut: usize| costs[..cut].iter().sum::<f64>().max(best_longest(&costs[cut..], segments - 1));
    (1..costs.len()).map(rest).fold(whole, f64::min)
}
