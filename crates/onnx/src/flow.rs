//! Which values flow from which nodes to which others.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::Error;
use crate::model::Model;
use crate::proto::{GraphProto, NodeProto, ValueInfoProto};

/// The order in which a graph's nodes can run, and how long each of its values is needed.
///
/// Positions are places between nodes in that order: position `p` is after the first `p` nodes. Values that depend on no input of the
/// graph – initialisers, and what is computed from them alone – are constants; they do not flow.
#[derive(Clone, Debug)]
pub struct Flow {
    pub(crate) order: Vec<usize>,
    pub(crate) values: Vec<Life>,
    /// For each node in order: the values that it takes and that are no constants, each once.
    pub(crate) taken: Vec<Vec<usize>>,
    /// For each node in order: whether all that it makes are constants.
    pub(crate) constant: Vec<bool>,
    /// Outputs of the graph that are constants.
    pub(crate) constant_outputs: Vec<String>,
}

/// From when to when a value is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) name: String,
    /// First position at which it is there: 0 for inputs of the graph.
    pub(crate) made: usize,
    /// Last position at which a node still needs it; `None` if no node does.
    pub(crate) last: Option<usize>,
    /// Whether it is an output of the graph.
    pub(crate) output: bool,
    /// Whether it is an input of the graph.
    pub(crate) input: bool,
}

impl Flow {
    /// The flow of a model's graph. Nodes that the file has in a possible order keep it.
    ///
    /// # Errors
    /// [`Error::UnknownValue`], [`Error::MadeTwice`], [`Error::Cycle`]; an output that nothing makes is an unknown value too.
    pub fn of(model: &Model) -> Result<Self, Error> {
        let graph = model.graph();
        let makers = makers(graph)?;
        let dependencies: Vec<BTreeSet<&str>> = graph.node.iter().map(dependencies).collect();
        let given = given(graph);
        for (node, names) in graph.node.iter().zip(&dependencies) {
            let unknown = names.iter().find(|&&name| !makers.contains_key(name) && !given.contains(name));
            if let Some(&name) = unknown {
                return Err(Error::UnknownValue { node: node_name(node), value: name.to_owned() });
            }
        }
        let order = order(graph, &makers, &dependencies)?;
        Self::along(model, order, &dependencies)
    }

    fn along(model: &Model, order: Vec<usize>, dependencies: &[BTreeSet<&str>]) -> Result<Self, Error> {
        let graph = model.graph();
        let life = |name: &str, made, input| Life { name: name.to_owned(), made, last: None, output: false, input };
        let mut values: Vec<Life> = model.inputs().iter().map(|port| life(&port.name, 0, true)).collect();
        let mut index: HashMap<&str, usize> = HashMap::new();
        for info in &graph.input {
            if let Some(i) = values.iter().position(|value| value.name == info.name()) {
                index.insert(info.name(), i);
            }
        }
        let mut taken = Vec::with_capacity(order.len());
        let mut constant = Vec::with_capacity(order.len());
        for (place, &node) in order.iter().enumerate() {
            let takes: Vec<usize> = dependencies[node].iter().filter_map(|name| index.get(name).copied()).collect();
            for &value in &takes {
                values[value].last = Some(place);
            }
            let node = &graph.node[node];
            let is_constant = takes.is_empty() && !is_random(node);
            if !is_constant {
                for name in node.output.iter().filter(|name| !name.is_empty()) {
                    index.insert(name, values.len());
                    values.push(life(name, place + 1, false));
                }
            }
            taken.push(takes);
            constant.push(is_constant);
        }
        let initialised = |name: &str| graph.initializer.iter().any(|tensor| tensor.name() == name);
        let made = |name: &str| graph.node.iter().any(|node| node.output.iter().any(|other| other == name));
        let mut constant_outputs = Vec::new();
        for info in &graph.output {
            match index.get(info.name()) {
                Some(&value) => values[value].output = true,
                None if initialised(info.name()) || made(info.name()) => constant_outputs.push(info.name().to_owned()),
                None => {
                    let node = "the graph's outputs".to_owned();
                    return Err(Error::UnknownValue { node, value: info.name().to_owned() });
                }
            }
        }
        Ok(Self { order, values, taken, constant, constant_outputs })
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The nodes, as places in the file, in an order in which they can run.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The values that must be carried over a position: made before it and taken after it. Inputs of the graph that are needed later are
    /// among them; outputs of the graph that are finished and not taken again are not.
    pub fn live(&self, position: usize) -> Vec<&str> {
        let crosses = |value: &&Life| value.made <= position && value.last.is_some_and(|last| last >= position);
        self.values.iter().filter(crosses).map(|value| value.name.as_str()).collect()
    }

    /// For each position from 0 to [`Flow::len`]: how many values that nodes have made must be carried over it.
    pub fn crossings(&self) -> Vec<usize> {
        let mut changes = vec![0_isize; self.len() + 2];
        for value in self.values.iter().filter(|value| !value.input) {
            if let Some(last) = value.last {
                changes[value.made] += 1;
                changes[last + 1] -= 1;
            }
        }
        let running = changes.iter().scan(0_isize, |sum, change| {
            *sum += change;
            Some(usize::try_from(*sum).expect("a value is taken after it is made"))
        });
        running.take(self.len() + 1).collect()
    }
}

/// Whether the size of some value depends on what the inputs contain, not only on their shapes: durations that a network predicts, say.
/// Such a network should not be tried with inputs that mean nothing: it may want any amount of memory.
pub fn sizes_follow_data(model: &Model) -> bool {
    let mut data: HashSet<&str> = model.graph().input.iter().map(ValueInfoProto::name).collect();
    data.retain(|name| !model.graph().initializer.iter().any(|tensor| tensor.name() == *name));
    follows_data(model.graph(), &mut data)
}

/// Adds what depends on data; whether a size does.
fn follows_data<'a>(graph: &'a GraphProto, data: &mut HashSet<&'a str>) -> bool {
    for node in &graph.node {
        let is_data = |i: usize| node.input.get(i).is_some_and(|name| data.contains(name.as_str()));
        let size_is_data = match node.op_type() {
            // How often a loop runs is a size too, as its outputs are stacked.
            "NonZero" | "Compress" | "Unique" | "Loop" | "Scan" | "NonMaxSuppression" => true,
            "Range" | "ConstantOfShape" => (0..3).any(is_data),
            "Expand" | "Tile" | "Reshape" | "OneHot" | "Pad" | "TopK" | "Upsample" => is_data(1),
            "Resize" | "Slice" => (1..5).any(is_data),
            _ => false,
        };
        let inner = node.attribute.iter().flat_map(|it| it.g.iter().chain(&it.graphs));
        if size_is_data || inner.map(|graph| follows_data(graph, data)).fold(false, |any, it| any | it) {
            return true;
        }
        let only_shapes = matches!(node.op_type(), "Shape" | "Size");
        if !only_shapes && dependencies(node).iter().any(|&name| data.contains(name)) {
            data.extend(node.output.iter().map(String::as_str));
        }
    }
    false
}

/// Which node makes each value.
fn makers(graph: &GraphProto) -> Result<HashMap<&str, usize>, Error> {
    let mut makers = HashMap::new();
    for (i, node) in graph.node.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            if makers.insert(name.as_str(), i).is_some() {
                return Err(Error::MadeTwice(name.clone()));
            }
        }
    }
    Ok(makers)
}

/// Values that are there without a node.
fn given(graph: &GraphProto) -> BTreeSet<&str> {
    let sparse =
        graph.sparse_initializer.iter().filter_map(|it| it.values.as_ref()).map(super::proto::TensorProto::name);
    let inputs = graph.input.iter().map(super::proto::ValueInfoProto::name);
    graph.initializer.iter().map(super::proto::TensorProto::name).chain(inputs).chain(sparse).collect()
}

/// What a node takes, including what graphs within it – branches and bodies of loops – take from outside.
pub(crate) fn dependencies(node: &NodeProto) -> BTreeSet<&str> {
    let mut names: BTreeSet<&str> = node.input.iter().map(String::as_str).collect();
    for attribute in &node.attribute {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            names.extend(captured(graph));
        }
    }
    names.remove("");
    names
}

/// What an inner graph takes from outside.
fn captured(graph: &GraphProto) -> BTreeSet<&str> {
    let mut inside = given(graph);
    inside.extend(graph.node.iter().flat_map(|node| &node.output).map(String::as_str));
    let mut names: BTreeSet<&str> = graph.node.iter().flat_map(dependencies).collect();
    names.extend(graph.output.iter().map(super::proto::ValueInfoProto::name));
    names.retain(|name| !inside.contains(name));
    names
}

/// An order in which every value is made before it is taken, and otherwise the file's.
fn order(
    graph: &GraphProto,
    makers: &HashMap<&str, usize>,
    dependencies: &[BTreeSet<&str>],
) -> Result<Vec<usize>, Error> {
    let count = graph.node.len();
    let mut waits_for = vec![0_usize; count];
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (node, names) in dependencies.iter().enumerate() {
        let before: BTreeSet<usize> = names.iter().filter_map(|&name| makers.get(name).copied()).collect();
        waits_for[node] = before.len();
        for &maker in &before {
            followers[maker].push(node);
        }
    }
    let mut ready: BTreeSet<usize> = (0..count).filter(|&node| waits_for[node] == 0).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for &follower in &followers[node] {
            waits_for[follower] -= 1;
            if waits_for[follower] == 0 {
                ready.insert(follower);
            }
        }
    }
    match waits_for.iter().position(|&waits| waits > 0) {
        Some(node) => Err(Error::Cycle(node_name(&graph.node[node]))),
        None => Ok(order),
    }
}

/// Whether a node makes something else each time, although it may take nothing.
fn is_random(node: &NodeProto) -> bool {
    let name = node.op_type();
    name.starts_with("Random") || matches!(name, "Multinomial" | "Bernoulli")
}

pub(crate) fn node_name(node: &NodeProto) -> String {
    match node.name() {
        "" => node.op_type().to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{Attr, Builder};
    use crate::model::ElementType::F32;

    #[test]
    fn values_live_from_their_node_to_the_last_that_takes_them() {
        let mut g = Builder::new("g", 17);
        let x = g.input("x", F32, &[]);
        let late = g.input("late", F32, &[]);
        let w = g.f32("w", &[], vec![1.0]);
        let constant = g.node("Neg", &[&w], &[]);
        let sum = g.node("Add", &[&x, &constant], &[]);
        let minus = g.node("Neg", &[&sum], &[]);
        let with_late = g.node("Add", &[&minus, &late], &[]);
        let end = g.node("Add", &[&with_late, &sum], &[]);
        g.output(&minus, F32, &[]);
        g.output(&end, F32, &[]);
        let flow = Flow::of(&g.into_model()).unwrap();
        assert_eq!(flow.order(), [0, 1, 2, 3, 4]);
        assert_eq!(flow.live(1), ["x", "late"]);
        assert_eq!(flow.live(2), ["late", &sum]);
        assert_eq!(flow.live(3), ["late", &sum, &minus]);
        assert_eq!(flow.live(4), [&sum, &with_late]);
        assert_eq!(flow.crossings(), [0, 0, 1, 2, 2, 0]);
    }

    #[test]
    fn branches_take_what_their_nodes_name() {
        let branch = |value: &str| {
            let mut g = Builder::new("branch", 17);
            let y = g.node("Neg", &[value], &[]);
            g.output(&y, F32, &[]);
            g.into_graph()
        };
        let mut g = Builder::new("g", 17);
        let x = g.input("x", F32, &[]);
        let condition = g.input("condition", crate::ElementType::Bool, &[]);
        let a = g.node("Abs", &[&x], &[]);
        let attributes = [("then_branch", Attr::Graph(branch(&a))), ("else_branch", Attr::Graph(branch("x")))];
        let y = g.node("If", &[&condition], &attributes);
        g.output(&y, F32, &[]);
        let flow = Flow::of(&g.clone().into_model()).unwrap();
        assert_eq!(flow.live(1), ["x", "condition", &a]);
        let mut model = g.into_model();
        model.graph_mut().node.swap(0, 1);
        assert_eq!(Flow::of(&model).unwrap().order(), [1, 0]);
    }

    #[test]
    fn sizes_from_shapes_are_no_data_but_sizes_from_numbers_are() {
        let size_from = |operator: &str| {
            let mut g = Builder::new("g", 17);
            let x = g.input("x", F32, &[]);
            let w = g.f32("w", &[], vec![1.0]);
            let size = g.node(operator, &[&x], &[]);
            let y = g.node("Expand", &[&w, &size], &[]);
            g.output(&y, F32, &[]);
            sizes_follow_data(&g.into_model())
        };
        assert!(!size_from("Shape"));
        assert!(size_from("Ceil"));
    }

    #[test]
    fn graphs_that_cannot_run_are_errors() {
        let chain = || {
            let mut g = Builder::new("g", 17);
            let x = g.input("x", F32, &[]);
            let a = g.node("Abs", &[&x], &[]);
            let b = g.node("Neg", &[&a], &[]);
            g.output(&b, F32, &[]);
            g.into_model()
        };
        let error = |change: &dyn Fn(&mut GraphProto)| {
            let mut model = chain();
            change(model.graph_mut());
            Flow::of(&model).unwrap_err().to_string()
        };
        let unknown = error(&|graph| graph.node[1].input[0] = "y".into());
        assert_eq!(unknown, "node `Neg` takes the value `y`, which no node, input or initialiser makes");
        assert_eq!(error(&|graph| graph.node[0].input[0] = "Neg".into()), "node `Abs` depends on its own output");
        assert_eq!(error(&|graph| graph.node[1].output[0] = "Abs".into()), "the value `Abs` is made more than once");
        assert!(error(&|graph| graph.output[0].name = Some("z".into())).contains("takes the value `z`"));
    }
}
