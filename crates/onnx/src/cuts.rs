//! Cutting a graph into segments.

use std::collections::HashMap;

use crate::flow::Flow;
use crate::model::{Model, tensor_bytes};
use crate::proto::{NodeProto, attribute_type};

/// What lies between two cuts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Places of its nodes in the file, in order, without those that make constants.
    pub nodes: Vec<usize>,
    /// Values that its nodes take and do not make, constants excluded.
    pub inputs: Vec<Carried>,
    /// Values that its nodes make and that are needed after it. Of the last piece also outputs of the graph that are constants.
    pub outputs: Vec<Carried>,
}

/// A value that crosses a cut, or an input or an output of the whole graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Its name.
    pub name: String,
    /// Whether a later piece takes it; of an input of a piece also: whether it is an output of the graph.
    pub later: bool,
    /// Whether it is an output of the graph.
    pub output: bool,
}

impl Flow {
    /// Chooses positions to cut at, so that there are as many segments as wanted, or as many as possible if those are fewer, and the
    /// longest of them is as short as possible. `costs` are those of the nodes as they stand in the file, in any unit.
    ///
    /// Each value that is carried over a cut costs something too. So of all choices whose longest segment is at most a tenth longer than
    /// it must be, one is taken that cuts where the fewest values cross.
    ///
    /// # Panics
    /// If there is not one cost for each node.
    pub fn cut(&self, segments: usize, costs: &[f64]) -> Vec<usize> {
        assert_eq!(costs.len(), self.len(), "each node needs a cost");
        let mut until = vec![0.0];
        for (&node, &constant) in self.order.iter().zip(&self.constant) {
            let cost = if constant || !costs[node].is_finite() { 0.0 } else { costs[node].max(0.0) };
            until.push(until[until.len() - 1] + cost);
        }
        let crossings = self.crossings();
        let places: Vec<usize> = (1..self.len()).collect();
        let best = shortest_longest(&until, &places, segments);
        let mut counts: Vec<usize> = places.iter().map(|&place| crossings[place]).collect();
        counts.sort_unstable();
        counts.dedup();
        for count in counts {
            let few: Vec<usize> = places.iter().copied().filter(|&place| crossings[place] <= count).collect();
            let longest = shortest_longest(&until, &few, segments);
            if longest <= best * 1.1 {
                return balanced(&until, &few, segments, longest);
            }
        }
        Vec::new()
    }

    /// What lies between cuts at these positions, which must be sorted.
    pub fn pieces(&self, cuts: &[usize]) -> Vec<Piece> {
        let ends = cuts.iter().copied().chain([self.len()]);
        let mut start = 0;
        let mut pieces = Vec::with_capacity(cuts.len() + 1);
        for end in ends {
            pieces.push(self.piece(start, end));
            start = end;
        }
        pieces
    }

    fn piece(&self, start: usize, end: usize) -> Piece {
        let mut inputs: Vec<usize> = self.taken[start..end].iter().flatten().copied().collect();
        inputs.sort_unstable();
        inputs.dedup();
        // Inputs of the graph that nothing takes belong to the first piece, which takes them away. One that is an output too stays.
        let whole = |i: &usize| start == 0 && self.values[*i].input && self.values[*i].last.is_none();
        inputs.extend((0..self.values.len()).filter(whole));
        inputs.retain(|&i| self.values[i].made <= start);
        let carried = |i: usize| {
            let value = &self.values[i];
            let later = value.last.is_some_and(|last| last >= end);
            Carried { name: value.name.clone(), later, output: value.output }
        };
        let made = |i: &usize| {
            let value = &self.values[*i];
            let here = !value.input && value.made > start && value.made <= end;
            here && (value.output || value.last.is_some_and(|last| last >= end))
        };
        let mut outputs: Vec<Carried> = (0..self.values.len()).filter(made).map(carried).collect();
        if end == self.len() {
            let constant = |name: &String| Carried { name: name.clone(), later: false, output: true };
            outputs.extend(self.constant_outputs.iter().map(constant));
        }
        Piece {
            nodes: (start..end).filter(|&i| !self.constant[i]).map(|i| self.order[i]).collect(),
            inputs: inputs.into_iter().map(carried).collect(),
            outputs,
        }
    }
}

/// The shortest that the longest segment can be.
fn shortest_longest(until: &[f64], places: &[usize], segments: usize) -> f64 {
    let total = until[until.len() - 1];
    let (mut low, mut high) = (total / segments.max(1) as f64, total);
    // Each round halves the interval; after 50 nothing is left of it.
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if needed(until, places, 0, middle) <= segments { high = middle } else { low = middle }
    }
    high
}

/// How many segments it takes from `start` on if none may be longer than `longest`; `usize::MAX` if one has to be.
fn needed(until: &[f64], places: &[usize], mut start: usize, longest: f64) -> usize {
    let end = until.len() - 1;
    let mut count = 1;
    while until[end] - until[start] > longest {
        let reachable = places.partition_point(|&place| until[place] - until[start] <= longest);
        match places[..reachable].last() {
            Some(&place) if place > start => start = place,
            _ => return usize::MAX,
        }
        count += 1;
    }
    count
}

/// Cuts of which no segment is longer than `longest`, each as close to an equal share of what is left as that allows.
fn balanced(until: &[f64], places: &[usize], segments: usize, longest: f64) -> Vec<usize> {
    let end = until.len() - 1;
    // Rounding must not make the last place unreachable.
    let longest = longest * (1.0 + 1e-9);
    let mut cuts = Vec::new();
    let mut start = 0;
    for left in (2..=segments).rev() {
        let share = (until[end] - until[start]) / left as f64;
        let ideal = until[start] + share;
        let can_finish = |place: usize| needed(until, places, place, longest) < left;
        let allowed = places.iter().copied().filter(|&place| {
            place > start
                && until[place] > until[start]
                && until[place] < until[end]
                && until[place] - until[start] <= longest
        });
        let mut allowed: Vec<usize> = allowed.collect();
        allowed.sort_by(|&a, &b| (until[a] - ideal).abs().total_cmp(&(until[b] - ideal).abs()));
        if let Some(&place) = allowed.iter().find(|&&place| can_finish(place)) {
            cuts.push(place);
            start = place;
        }
    }
    cuts
}

/// An estimate of each node's cost, in multiplications, for when nothing was measured: the weights that it takes, times how often a
/// convolution uses them if the input's picture has 256 × 256 pixels. Good for transformers, rough for networks that mix both.
pub fn estimate(model: &Model) -> Vec<f64> {
    let graph = model.graph();
    let weights: HashMap<&str, f64> = graph.initializer.iter().map(|it| (it.name(), tensor_bytes(it) as f64)).collect();
    // Area of a value's picture relative to that of the input's.
    let mut areas: HashMap<&str, f64> = HashMap::new();
    let mut costs = Vec::with_capacity(graph.node.len());
    for node in &graph.node {
        let area = node.input.iter().filter_map(|name| areas.get(name.as_str())).copied().fold(f64::NAN, f64::max);
        let area = if area.is_nan() { 1.0 } else { area };
        let strides = ints(node, "strides").iter().map(|&it| it as f64).product::<f64>();
        let after = match node.op_type() {
            "Conv" | "ConvInteger" | "QLinearConv" | "MaxPool" | "AveragePool" => area / strides.max(1.0),
            "ConvTranspose" => area * strides.max(1.0),
            "DepthToSpace" => area * ints(node, "blocksize").iter().map(|&it| (it * it) as f64).product::<f64>(),
            // Nearly every network that enlarges doubles.
            "Resize" | "Upsample" => area * 4.0,
            "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" => 1.0 / PIXELS,
            _ => area,
        };
        node.output.iter().for_each(|name| {
            areas.insert(name, after);
        });
        let taken: f64 = node.input.iter().filter_map(|name| weights.get(name.as_str())).sum();
        let uses = if node.op_type().contains("Conv") { after.max(area) * PIXELS } else { 1.0 };
        // Nodes without weights cost something too.
        costs.push(taken * uses + 1000.0);
    }
    costs
}

const PIXELS: f64 = 256.0 * 256.0;

fn ints<'a>(node: &'a NodeProto, name: &str) -> Vec<i64> {
    let found: Option<&'a _> = node.attribute.iter().find(|it| it.name() == name);
    match found {
        Some(it) if it.r#type() == attribute_type::INT => vec![it.i()],
        Some(it) => it.ints.clone(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Builder;
    use crate::model::ElementType::F32;

    /// A chain of blocks, each with a detour: inside a block two values cross, between blocks one.
    fn blocks(count: usize) -> Model {
        let mut g = Builder::new("g", 17);
        let mut x = g.input("x", F32, &[]);
        for _ in 0..count {
            let a = g.node("Abs", &[&x], &[]);
            let b = g.node("Neg", &[&a], &[]);
            x = g.node("Add", &[&b, &x], &[]);
        }
        g.output(&x, F32, &[]);
        g.into_model()
    }

    #[test]
    fn equal_blocks_are_cut_between_them() {
        let flow = Flow::of(&blocks(6)).unwrap();
        assert_eq!(flow.cut(3, &[1.0; 18]), [6, 12]);
        assert_eq!(flow.cut(1, &[1.0; 18]), []);
        assert_eq!(flow.cut(6, &[1.0; 18]), [3, 6, 9, 12, 15]);
    }

    #[test]
    fn where_few_values_cross_is_better_only_while_the_longest_segment_stays_short() {
        let flow = Flow::of(&blocks(2)).unwrap();
        // A cut between the blocks makes 10 and 1; one within the first makes 5 and 6.
        assert_eq!(flow.cut(2, &[5.0, 3.0, 2.0, 0.5, 0.5, 0.0]), [1]);
        assert_eq!(flow.cut(2, &[2.0, 2.0, 2.0, 3.0, 2.0, 2.0]), [3]);
    }

    #[test]
    fn there_are_no_empty_segments() {
        let flow = Flow::of(&blocks(1)).unwrap();
        assert_eq!(flow.cut(5, &[1.0; 3]), [1, 2]);
        assert_eq!(flow.cut(3, &[0.0, 1.0, 0.0]), []);
        assert_eq!(flow.cut(3, &[0.0; 3]), []);
        assert_eq!(flow.cut(2, &[f64::NAN, 1.0, 1.0]), [2]);
    }

    #[test]
    fn pieces_hand_on_what_is_needed_later() {
        let flow = Flow::of(&blocks(2)).unwrap();
        let pieces = flow.pieces(&[1, 4]);
        let names = |list: &[Carried]| list.iter().map(|it| (it.name.clone(), it.later, it.output)).collect::<Vec<_>>();
        let is = |name: &str, later, output| (name.to_owned(), later, output);
        assert_eq!(names(&pieces[0].inputs), [is("x", true, false)]);
        assert_eq!(names(&pieces[0].outputs), [is("Abs", true, false)]);
        assert_eq!(names(&pieces[1].inputs), [is("x", false, false), is("Abs", false, false)]);
        assert_eq!(pieces[1].nodes, [1, 2, 3]);
        assert_eq!(pieces[2].outputs.len(), 1);
        assert!(pieces[2].outputs[0].output);
    }

    #[test]
    fn weights_and_pictures_make_nodes_dear() {
        let mut g = Builder::new("g", 17);
        let x = g.input("x", F32, &[]);
        let w = g.f32("w", &[8, 8, 1, 1], vec![0.0; 64]);
        let strides = [("strides", crate::Attr::Ints(vec![2, 2]))];
        let wide = g.node("Conv", &[&x, &w], &[]);
        let halved = g.node("Conv", &[&wide, &w], &strides);
        let narrow = g.node("Conv", &[&halved, &w], &[]);
        let mean = g.node("GlobalAveragePool", &[&narrow], &[]);
        let end = g.node("MatMul", &[&mean, &w], &[]);
        g.output(&end, F32, &[]);
        let costs = estimate(&g.into_model());
        assert!(costs[0] > 3.9 * costs[2] && costs[2] > 100.0 * costs[4], "{costs:?}");
    }
}
