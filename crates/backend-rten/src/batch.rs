//! One step for several members: how a network that appends to caches is extended so that it takes several sequences at once.
//!
//! Everything but attention treats the rows of its input alike, so the rows of all members are put on top of each other, and the weights
//! are read once for all. Attention runs for each member by itself, on its own caches, which are never moved or padded. The nodes that
//! do this are added to the same file, beside the network as it is: they share its weights, and whoever asks for the outputs of one member
//! runs the network as it was.

use std::collections::{HashMap, HashSet};

use onbeat_onnx::proto::{
    Dimension, DimensionValue, GraphProto, NodeProto, TensorProto, TensorType, TypeValue, ValueInfoProto,
};
use onbeat_onnx::{Attr, Builder, Model, tensor};

/// The most members of a step.
pub(crate) const MEMBERS_MAX: usize = 8;
/// Up to so many members, rows are multiplied with 4-bit codes one by one, as for a member alone, and each gets the very same numbers:
/// `rten` 0.27.0 unpacks the codes anew for each row. With more members it is made to unpack them to floating point first, as it does for
/// prompts. That takes as long as five rows do, and more rows cost little then.
const ROWS_MAX: usize = 5;

/// Name of what member number `i` (from 0) brings, or what follows from its sizes, however many members there are.
pub(crate) fn own(name: &str, i: usize) -> String {
    format!("{name}/onbeat/{i}")
}

/// Name of the rows of so many members.
fn all(name: &str, members: usize) -> String {
    format!("{name}/onbeat/of{members}")
}

/// Name of the part of them that is member number `i`'s.
fn part(name: &str, members: usize, i: usize) -> String {
    format!("{name}/onbeat/of{members}/{i}")
}

/// Adds nodes for steps of 2 to [`MEMBERS_MAX`] members, each with one row (token). `false`, and the network as it was, if it has no
/// caches or holds something of which it is not known that it treats rows alike.
pub(crate) fn add_batches(network: &mut Model) -> bool {
    let graph = network.graph();
    if !graph.node.iter().any(|node| node.op_type() == ATTENTION) {
        return false;
    }
    let mut batches = Batches::new(graph);
    for members in 2..=MEMBERS_MAX {
        if batches.add(members).is_none() {
            return false;
        }
    }
    let Batches { nodes, consts, outputs, .. } = batches;
    let inputs: Vec<ValueInfoProto> = (0..MEMBERS_MAX)
        .flat_map(|i| network.graph().input.iter().map(|it| input_of(it, i)).collect::<Vec<_>>())
        .collect();
    let graph = network.graph_mut();
    graph.node.extend(nodes);
    graph.initializer.extend(consts);
    graph.input.extend(inputs);
    graph.output.extend(outputs);
    true
}

/// An input of one member. Its free sizes have no names: sizes of one name are taken to be equal.
fn input_of(input: &ValueInfoProto, i: usize) -> ValueInfoProto {
    let mut input = ValueInfoProto { name: Some(own(input.name(), i)), ..input.clone() };
    let value = input.r#type.as_mut().and_then(|it| it.value.as_mut());
    if let Some(TypeValue::Tensor(TensorType { shape: Some(shape), .. })) = value {
        let named = |dim: &&mut Dimension| matches!(dim.value, Some(DimensionValue::Param(_)));
        shape.dim.iter_mut().filter(named).for_each(|dim| dim.value = None);
    }
    input
}

const ATTENTION: &str = "GroupQueryAttention";
const CODES: &str = "MatMulNBits";

/// What a value is to a step.
#[derive(Clone, Debug)]
enum Form {
    /// Each member's own; and whether it holds what its row is computed from, or only what follows from sizes.
    Own { names: Vec<String>, rows: bool },
    /// The rows of all members on top of each other, along this dimension.
    Stacked { name: String, axis: usize },
}

struct Batches<'a> {
    graph: &'a GraphProto,
    /// What a member has by itself whatever the number of members: by the original's name.
    facts: HashMap<(String, usize), String>,
    nodes: Vec<NodeProto>,
    consts: Vec<TensorProto>,
    known: HashSet<String>,
    outputs: Vec<ValueInfoProto>,
    /// The network rounds rows to 8 bits on their way: a difference in the last digit before that can be a large one after it.
    rounds: bool,
}

impl<'a> Batches<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        Self {
            graph,
            rounds: graph.node.iter().any(|node| node.op_type() == CODES),
            facts: HashMap::new(),
            nodes: Vec::new(),
            consts: Vec::new(),
            known: HashSet::new(),
            outputs: Vec::new(),
        }
    }

    /// Adds the nodes for a step of so many members; `None` if the network cannot be batched.
    fn add(&mut self, members: usize) -> Option<()> {
        let graph = self.graph;
        let mut forms: HashMap<&str, Form> = HashMap::new();
        for input in &graph.input {
            let names = (0..members).map(|i| own(input.name(), i)).collect();
            forms.insert(input.name(), Form::Own { names, rows: true });
        }
        for node in &graph.node {
            self.translate(node, &mut forms, members)?;
        }
        for output in &graph.output {
            // What does not depend on the inputs is nobody's output.
            let names = self.parts(output.name(), forms.get(output.name())?.clone(), members)?;
            for (i, name) in names.into_iter().enumerate() {
                if name != part(output.name(), members, i) {
                    return None;
                }
                self.outputs.push(ValueInfoProto { name: Some(name), ..ValueInfoProto::default() });
            }
        }
        Some(())
    }

    fn translate(&mut self, node: &'a NodeProto, forms: &mut HashMap<&'a str, Form>, members: usize) -> Option<()> {
        if node.attribute.iter().any(|it| it.g.is_some() || !it.graphs.is_empty()) {
            return None;
        }
        let given: Vec<Option<Form>> = node.input.iter().map(|name| forms.get(name.as_str()).cloned()).collect();
        if given.iter().all(Option::is_none) {
            // The same for all members: the node that is there serves.
            return Some(());
        }
        let rows =
            given.iter().flatten().any(|form| matches!(form, Form::Own { rows: true, .. } | Form::Stacked { .. }));
        // `rten` multiplies several rows with floating-point numbers in another order than one. In a network of codes, what is multiplied so
        // is small.
        let by_itself = node.op_type() == "MatMul" && self.rounds && members <= ROWS_MAX;
        if node.op_type() == ATTENTION || by_itself {
            return self.each(node, &given, forms, members);
        }
        if !rows || matches!(node.op_type(), "Shape" | "Size") {
            return self.facts(node, &given, forms, members);
        }
        let axis = self.axis_after(node, &given)?;
        let mut inputs = Vec::with_capacity(node.input.len());
        for (name, form) in node.input.iter().zip(&given) {
            inputs.push(match form {
                None => name.clone(),
                Some(Form::Stacked { name, .. }) => name.clone(),
                Some(Form::Own { names, rows: true }) => self.stack(name, names, members),
                Some(Form::Own { rows: false, .. }) => return None,
            });
        }
        if node.op_type() == "Reshape" {
            inputs[1] = self.keeping_rows(&node.input[1])?;
        }
        let rename = |name: &String| if name.is_empty() { String::new() } else { all(name, members) };
        let outputs: Vec<String> = node.output.iter().map(rename).collect();
        for (name, new) in node.output.iter().zip(&outputs).filter(|(name, _)| !name.is_empty()) {
            forms.insert(name, Form::Stacked { name: new.clone(), axis });
        }
        if node.op_type() == CODES && members > ROWS_MAX {
            // As a prompt of so many tokens, and back.
            let [from, to] = ["prompt", "product"].map(|what| format!("{}/{what}", outputs[0]));
            let turned = |from: &String, to: &String| {
                made("Transpose", vec![from.clone()], vec![to.clone()], &[("perm", Attr::Ints(vec![1, 0, 2]))])
            };
            let before = turned(&inputs[0], &from);
            let after = turned(&to, &outputs[0]);
            inputs[0] = from;
            self.nodes.extend([
                before,
                NodeProto { input: inputs, output: vec![to], name: None, ..node.clone() },
                after,
            ]);
            return Some(());
        }
        self.nodes.push(NodeProto { input: inputs, output: outputs, name: None, ..node.clone() });
        Some(())
    }

    /// A node for each member: it attends to its own caches.
    fn each(
        &mut self,
        node: &'a NodeProto,
        given: &[Option<Form>],
        forms: &mut HashMap<&'a str, Form>,
        members: usize,
    ) -> Option<()> {
        let mut inputs = vec![Vec::with_capacity(node.input.len()); members];
        for (name, form) in node.input.iter().zip(given) {
            let own = match form {
                None => vec![name.clone(); members],
                Some(form) => self.parts(name, form.clone(), members)?,
            };
            inputs.iter_mut().zip(own).for_each(|(inputs, own)| inputs.push(own));
        }
        let mut outputs: Vec<Vec<String>> = vec![Vec::new(); node.output.len()];
        for (i, input) in inputs.into_iter().enumerate() {
            let output: Vec<String> = node.output.iter().map(|name| part(name, members, i)).collect();
            outputs.iter_mut().zip(&output).for_each(|(list, name)| list.push(name.clone()));
            self.nodes.push(NodeProto { input, output, name: None, ..node.clone() });
        }
        for (name, names) in node.output.iter().zip(outputs) {
            forms.insert(name, Form::Own { names, rows: true });
        }
        Some(())
    }

    /// What follows from the sizes of a member's inputs is computed for each, once for all numbers of members.
    fn facts(
        &mut self,
        node: &'a NodeProto,
        given: &[Option<Form>],
        forms: &mut HashMap<&'a str, Form>,
        members: usize,
    ) -> Option<()> {
        let [output] = node.output.as_slice() else { return None };
        let mut names = Vec::with_capacity(members);
        for i in 0..members {
            let key = (output.clone(), i);
            if let Some(name) = self.facts.get(&key) {
                names.push(name.clone());
                continue;
            }
            let mut input = Vec::with_capacity(node.input.len());
            for (name, form) in node.input.iter().zip(given) {
                input.push(match form {
                    None => name.clone(),
                    Some(Form::Own { names, .. }) => names[i].clone(),
                    Some(Form::Stacked { .. }) => return None,
                });
            }
            let name = own(output, i);
            self.nodes.push(NodeProto { input, output: vec![name.clone()], name: None, ..node.clone() });
            self.facts.insert(key, name.clone());
            names.push(name);
        }
        forms.insert(output, Form::Own { names, rows: false });
        Some(())
    }

    /// Along which dimension the rows of a node's output lie; `None` if it is not known to treat them alike.
    fn axis_after(&self, node: &NodeProto, given: &[Option<Form>]) -> Option<usize> {
        let axis_of = |form: &Option<Form>| match form {
            Some(Form::Stacked { axis, .. }) => Some(*axis),
            Some(Form::Own { rows: true, .. }) => Some(0),
            _ => None,
        };
        let first = given.first().and_then(axis_of);
        let attribute = |name: &str| node.attribute.iter().find(|it| it.name() == name);
        let axis = attribute("axis").map(|it| it.i());
        let only_first = given[1..].iter().all(Option::is_none);
        let all_first = given.iter().all(|form| axis_of(form).is_none_or(|axis| axis == 0));
        let fine = match node.op_type() {
            "Add" | "Sub" | "Mul" | "Div" | "Sigmoid" | "Tanh" | "Erf" | "Gelu" | "Cast" | "Identity" => all_first,
            "SkipSimplifiedLayerNormalization" | "SkipLayerNormalization" => {
                all_first && given[2..].iter().all(Option::is_none)
            }
            "SimplifiedLayerNormalization" | "LayerNormalization" | "Softmax" => only_first && axis == Some(-1),
            "MatMul" | CODES => {
                only_first && first == Some(0) && (node.op_type() == CODES || self.rank(&node.input[1]) == Some(2))
            }
            "Concat" => all_first && axis == Some(-1) && given.iter().all(Option::is_some),
            "Split" => only_first && first == Some(0) && axis == Some(-1),
            "Reshape" => {
                only_first
                    && first == Some(0)
                    && self.integers(&node.input[1])?.first().is_some_and(|&it| it == 1 || it == 0)
            }
            "ReduceSum" => only_first && first == Some(0) && self.integers(node.input.get(1)?)? == [-1],
            "Pad" => {
                let pads = self.integers(node.input.get(1)?)?;
                only_first && first == Some(0) && pads[0] == 0 && pads[pads.len() / 2] == 0
            }
            "Transpose" => {
                let order = &attribute("perm")?.ints;
                return order.iter().position(|&it| Some(it) == first.map(|axis| axis as i64));
            }
            "Gather" => {
                let axis = axis.unwrap_or(0);
                return match (first, given.get(1)?) {
                    // Rows of a table.
                    (None, form @ Some(_)) if given[0].is_none() && axis_of(form) == Some(0) => {
                        usize::try_from(axis).ok()
                    }
                    // Some of each row.
                    (Some(0), None) if axis != 0 => Some(0),
                    _ => None,
                };
            }
            _ => false,
        };
        fine.then_some(0)
    }

    fn rank(&self, name: &str) -> Option<usize> {
        Some(self.graph.initializer.iter().find(|it| it.name() == name)?.dims.len())
    }

    /// A constant of integers.
    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        let it = self.graph.initializer.iter().find(|it| it.name() == name)?;
        let number = |it: &[u8]| i64::from_le_bytes(it.try_into().expect("chunks are of eight bytes"));
        let numbers: Vec<i64> = match &it.raw_data {
            Some(raw) => raw.chunks_exact(8).map(number).collect(),
            None => it.int64_data.clone(),
        };
        (!numbers.is_empty()).then_some(numbers)
    }

    /// A shape whose first dimension is that of what gets the shape.
    fn keeping_rows(&mut self, name: &str) -> Option<String> {
        let mut shape = self.integers(name)?;
        let new = format!("{name}/onbeat");
        if self.known.insert(new.clone()) {
            shape[0] = 0;
            let it = tensor(&[shape.len()], &shape);
            self.consts.push(TensorProto { name: Some(new.clone()), ..it });
        }
        Some(new)
    }

    /// The members' rows on top of each other.
    fn stack(&mut self, of: &str, names: &[String], members: usize) -> String {
        let name = all(of, members);
        if self.known.insert(name.clone()) {
            self.nodes.push(made("Concat", names.to_vec(), vec![name.clone()], &[("axis", Attr::Int(0))]));
        }
        name
    }

    /// Each member's part.
    fn parts(&mut self, of: &str, form: Form, members: usize) -> Option<Vec<String>> {
        match form {
            Form::Own { names, .. } => Some(names),
            Form::Stacked { name, axis: 0 } => {
                let names: Vec<String> = (0..members).map(|i| part(of, members, i)).collect();
                if self.known.insert(format!("{name}.split")) {
                    let sizes = format!("onbeat/ones/{members}");
                    if self.known.insert(sizes.clone()) {
                        let it = tensor(&[members], &vec![1_i64; members]);
                        self.consts.push(TensorProto { name: Some(sizes.clone()), ..it });
                    }
                    self.nodes.push(made("Split", vec![name, sizes], names.clone(), &[("axis", Attr::Int(0))]));
                }
                Some(names)
            }
            Form::Stacked { .. } => None,
        }
    }
}

/// A node with inputs and outputs of these names.
fn made(operator: &str, input: Vec<String>, output: Vec<String>, attributes: &[(&str, Attr)]) -> NodeProto {
    let mut g = Builder::new("", 17);
    g.node(operator, &[], attributes);
    let node = g.into_graph().node.remove(0);
    NodeProto { input, name: None, output, ..node }
}

#[cfg(test)]
mod tests {
    use onbeat_onnx::{Dim, ElementType};

    use super::*;

    /// One layer of attention, and what `after` makes of it.
    fn network(after: impl FnOnce(&mut Builder, &str) -> String) -> Model {
        let mut g = Builder::new("g", 17);
        g.contrib();
        let (one, free) = (Dim::Fixed(1), |name: &str| Dim::Free(name.into()));
        let x = g.input("x", ElementType::F32, &[one.clone(), free("new"), Dim::Fixed(24)]);
        let past = ["key", "value"]
            .map(|it| g.input(it, ElementType::F32, &[one.clone(), Dim::Fixed(1), free("before"), Dim::Fixed(8)]));
        let (last, total) = (g.i32("last", &[1], vec![0]), g.i32("total", &[], vec![1]));
        let heads = [("num_heads", Attr::Int(1)), ("kv_num_heads", Attr::Int(1))];
        let made = g.contrib_node_n("GroupQueryAttention", &[&x, "", "", &past[0], &past[1], &last, &total], &heads, 3);
        let y = after(&mut g, &made[0]);
        g.output(&y, ElementType::F32, &[]);
        g.into_model()
    }

    #[test]
    fn rows_are_stacked_where_they_are_treated_alike_and_else_the_network_stays_as_it_is() {
        let mut alike = network(|g, y| g.node("Sigmoid", &[y], &[]));
        assert!(add_batches(&mut alike));
        let count = |operator: &str| alike.graph().node.iter().filter(|it| it.op_type() == operator).count();
        assert_eq!(count("GroupQueryAttention"), 1 + (2..=MEMBERS_MAX).sum::<usize>());
        assert_eq!(count("Sigmoid"), MEMBERS_MAX);
        assert_eq!(alike.graph().input.len(), 3 * (1 + MEMBERS_MAX));

        let others: [fn(&mut Builder, &str) -> String; 3] = [
            // Softmax over the rows, a sum of them, and an operator that nothing is known of.
            |g, y| g.node("Softmax", &[y], &[("axis", Attr::Int(0))]),
            |g, y| {
                let axis = g.i64("axis", &[1], vec![0]);
                g.node("ReduceSum", &[y, &axis], &[])
            },
            |g, y| g.node("CumSum", &[y], &[]),
        ];
        for other in others {
            let mut network = network(other);
            let before = network.proto().clone();
            assert!(!add_batches(&mut network));
            assert_eq!(*network.proto(), before);
        }
        let mut g = Builder::new("g", 17);
        let x = g.input("x", ElementType::F32, &[Dim::Fixed(1)]);
        let y = g.node("Sigmoid", &[&x], &[]);
        g.output(&y, ElementType::F32, &[]);
        assert!(!add_batches(&mut g.into_model()));
    }
}
