//! What no policy can beat: the shortest time of a job, and of what certainly follows a stage.

use crate::cost::{Cost, Phase, Work};
use crate::id::Id;
use crate::joint::divided_ns;
use crate::system::{Edge, Node, Source};
use crate::units::Nanos;

use super::cost::shortest_ns;

/// Whether at least one instance certainly follows.
fn certain(edge: &Edge) -> bool {
    edge.probability >= 1.0 && edge.fan_out.as_ref().is_none_or(|fan_out| fan_out.smallest().round() >= 1.0)
}

/// Sets `tail` of a source's stages and the source's `shortest`. `works` are the stages' smallest sizes, `splits` whether they can be
/// divided among processors, `variation` is the smallest factor.
pub(super) fn set(mut nodes: Vec<&mut Node>, source: &mut Source, (works, splits): (&[Work], &[bool]), variation: f64) {
    let first = source.nodes.start as usize;
    let need = |together: bool| -> Vec<f64> {
        let stages = nodes.iter();
        stages
            .zip(works.iter().zip(splits))
            .map(|(node, (&work, &splits))| {
                if let Some(tool) = &node.tool {
                    return tool.smallest();
                }
                let least = |variant: u8| {
                    let work = node.least_work_of(variant, work);
                    let latencies = node.costs_of(variant).enumerate().filter_map(|(p, cost)| {
                        let decode = if together { node.decode_least(p) } else { 1.0 };
                        Some(shortest_ns(cost.as_ref()?, work, variation, decode))
                    });
                    // All together are the sum of their rates, at most.
                    if splits && together { divided_ns(latencies) } else { latencies.fold(f64::INFINITY, f64::min) }
                };
                node.variant_numbers().map(least).fold(f64::INFINITY, f64::min)
            })
            .collect()
    };
    let (alone, need) = (need(false), need(true));
    let helped = alone != need;
    // Edges by their end: (start, whether it is certainly taken).
    let mut before: Vec<Vec<(usize, bool)>> = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        for edge in &node.after {
            before[edge.to.index() - first].push((i, certain(edge)));
        }
    }
    let always = runs_given(None, &before);
    let path = longest(None, &always, &before, &need);
    source.shortest = floor(path.into_iter().flatten().fold(0.0, f64::max));
    for (i, node) in nodes.iter_mut().enumerate() {
        let given = runs_given(Some((i, &always)), &before);
        let tail = |need: &[f64]| {
            let path = longest(Some(i), &given, &before, need);
            floor(path.into_iter().flatten().fold(0.0, f64::max))
        };
        node.tail = tail(&alone);
        node.tail_together = helped.then(|| tail(&need));
    }
}

/// Sets `to_first_token` of the stages of a source with a goal for its tokens, the first of which has index `first`. All edges
/// count, whether certain or not: what a stage must leave time for if the answer follows.
pub(super) fn set_to_first_token(mut nodes: Vec<&mut Node>, first: usize) {
    let reads = |node: &Node| {
        let prefill = |cost: &Cost| {
            let (kind, cost) = cost.phases.first()?;
            (*kind == Phase::Prefill).then(|| cost.latency_ns(node.expected, 0.0, node.expected.units(*kind)))
        };
        node.costs.iter().flatten().filter_map(prefill).reduce(f64::min)
    };
    let Some((last, prefill)) = nodes.iter().enumerate().rev().find_map(|(i, node)| Some((i, reads(node)?))) else {
        return;
    };
    nodes[last].to_first_token = Some(Nanos::ZERO);
    for i in (0..last).rev() {
        let follow = nodes[i].after.iter().filter_map(|edge| {
            let to = edge.to.index() - first;
            let rest = nodes.get(to)?.to_first_token?;
            let own = if to == last { Nanos::from_ns_f64(prefill) } else { nodes[to].best };
            Some(rest.saturating_add(own))
        });
        nodes[i].to_first_token = follow.max();
    }
}

/// Which stages certainly run: those without predecessors, and those with a certain edge from one that certainly runs (a stage waits
/// for all its predecessors and runs if any of its edges is taken). With a start: given that it runs.
fn runs_given(start: Option<(usize, &[bool])>, before: &[Vec<(usize, bool)>]) -> Vec<bool> {
    let mut runs = Vec::with_capacity(before.len());
    for (i, edges) in before.iter().enumerate() {
        let known = match start {
            Some((start, always)) => start == i || always[i],
            None => edges.is_empty(),
        };
        runs.push(known || edges.iter().any(|&(from, certain)| certain && runs[from]));
    }
    runs
}

/// The longest path to each stage over certain edges and stages that certainly run, from the beginning or from the end of a start;
/// `None` where there is no such path.
fn longest(start: Option<usize>, runs: &[bool], before: &[Vec<(usize, bool)>], need: &[f64]) -> Vec<Option<f64>> {
    let mut path: Vec<Option<f64>> = Vec::with_capacity(before.len());
    for (i, edges) in before.iter().enumerate() {
        let from = edges.iter().filter_map(|&(from, certain)| path[from].filter(|_| certain)).reduce(f64::max);
        path.push(match start {
            Some(start) if start == i => Some(0.0),
            Some(_) => from.filter(|_| runs[i]).map(|from| from + need[i]),
            None => runs[i].then(|| from.unwrap_or(0.0) + need[i]),
        });
    }
    path
}

/// Rounded down: a bound must not be too high.
fn floor(ns: f64) -> Nanos {
    Nanos::from_ns_f64(ns.floor())
}

/// The most stage instances that one job can have. `nodes` are the stages of one source, the first one with index `first`.
///
/// A stage has as many instances as the edge with the most of them says; the instances of a stage before do not multiply it, except
/// where each of them puts out tokens.
pub(super) fn instances_max(nodes: &[Node], first: usize) -> f64 {
    let mut instances = vec![1.0; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        for edge in &node.after {
            let to = &mut instances[edge.to.index() - first];
            if let Some(tokens) = edge.per_tokens {
                *to += f64::from(node.output_max.div_ceil(tokens.max(1)));
            } else if let Some(fan_out) = &edge.fan_out {
                *to = f64::max(*to, fan_out.largest().ceil());
            }
        }
        for edge in node.after.iter().filter(|edge| edge.per_tokens.is_some()) {
            let own = instances[i];
            instances[edge.to.index() - first] *= own;
        }
    }
    instances.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTAIN: bool = true;
    const PERHAPS: bool = false;

    /// 0 → 1 (perhaps) → 3, 0 → 2 → 3: a diamond with one uncertain side, and 3 → 4 (perhaps).
    fn diamond() -> Vec<Vec<(usize, bool)>> {
        vec![vec![], vec![(0, PERHAPS)], vec![(0, CERTAIN)], vec![(1, CERTAIN), (2, CERTAIN)], vec![(3, PERHAPS)]]
    }

    #[test]
    fn a_job_is_at_least_as_long_as_its_longest_certain_path() {
        let before = diamond();
        let need = [1.0, 100.0, 10.0, 1000.0, 10000.0];
        let always = runs_given(None, &before);
        assert_eq!(always, [true, false, true, true, false]);
        let path = longest(None, &always, &before, &need);
        assert_eq!(path, [Some(1.0), None, Some(11.0), Some(1011.0), None]);
    }

    #[test]
    fn what_follows_a_stage_that_runs_counts_even_if_the_stage_itself_is_uncertain() {
        let before = diamond();
        let need = [1.0, 100.0, 10.0, 1000.0, 10000.0];
        let always = runs_given(None, &before);
        let tail = |start: usize| {
            let given = runs_given(Some((start, &always)), &before);
            longest(Some(start), &given, &before, &need).into_iter().flatten().fold(0.0, f64::max)
        };
        assert_eq!([0, 1, 2, 3, 4].map(tail), [1010.0, 1000.0, 1000.0, 0.0, 0.0]);
    }
}
