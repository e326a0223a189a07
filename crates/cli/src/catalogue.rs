//! What onbeat knows by name: policies, platforms, scenarios, models, metrics.

use include_dir::{Dir, include_dir};
use onbeat_core::metric::{Better, Metric, Scope};
use onbeat_core::spec::{FileKind, Library, ModelShape, ModelSpec};
use onbeat_policy::PolicyInfo;
use serde_json::{Map, Value, json};

use crate::args::ListKind;
use crate::ui::push;

static POLICY_PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/policies");

/// One thing of a list.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Name.
    pub(crate) name: String,
    /// What it is, in one sentence.
    pub(crate) description: String,
    /// More to know, such as parameters; one line each.
    pub(crate) notes: Vec<String>,
    /// Further fields of the JSON form.
    pub(crate) fields: Map<String, Value>,
}

impl Entry {
    fn new(name: &str, description: impl Into<String>, notes: Vec<String>, fields: &Value) -> Self {
        let fields = fields.as_object().cloned().unwrap_or_default();
        Self { name: name.to_owned(), description: description.into(), notes, fields }
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("name".to_owned(), json!(self.name));
        object.insert("description".to_owned(), json!(self.description));
        object.extend(self.fields.clone());
        Value::Object(object)
    }
}

/// All things of a kind, in the order to show.
pub(crate) fn entries(kind: ListKind) -> Vec<Entry> {
    match kind {
        ListKind::Policies => onbeat_policy::all().iter().map(policy).collect(),
        ListKind::Metrics => Metric::ALL.iter().map(|&m| metric(m)).collect(),
        ListKind::Platforms => shipped(FileKind::Platform),
        ListKind::Scenarios => shipped(FileKind::Scenario),
        ListKind::Models => Library::shipped().models().into_iter().map(|(name, spec)| model(name, spec)).collect(),
    }
}

/// Names of everything.
pub(crate) fn names() -> Vec<String> {
    let kinds = [ListKind::Scenarios, ListKind::Platforms, ListKind::Policies, ListKind::Models, ListKind::Metrics];
    kinds.into_iter().flat_map(entries).map(|entry| entry.name).collect()
}

/// What there is to read about something.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    /// A file, to be printed as it is.
    File(String),
    /// Text in Markdown, to be wrapped.
    Text(String),
}

/// The pages of everything with this name.
pub(crate) fn pages(name: &str) -> Vec<Page> {
    let library = Library::shipped();
    let mut pages: Vec<Page> = Vec::new();
    for kind in [FileKind::Scenario, FileKind::Platform] {
        pages.extend(library.text(kind, name).map(|text| Page::File(text.to_owned())));
    }
    let model = library.models().into_iter().find(|(known, _)| *known == name);
    pages.extend(model.map(|(_, spec)| Page::Text(model_page(name, spec))));
    pages.extend(onbeat_policy::find(name).ok().map(|info| Page::Text(policy_page(info))));
    pages.extend(Metric::by_name(name).map(|metric| Page::Text(metric_page(metric))));
    pages
}

fn shipped(kind: FileKind) -> Vec<Entry> {
    let entry = |entry: onbeat_core::spec::Entry| {
        // The title goes before the description, unless it says nothing more than the name.
        let text: Vec<&str> =
            [entry.title.as_str(), entry.description.as_str()].into_iter().filter(|t| !t.is_empty()).collect();
        let text = text.join(". ");
        let fields = json!({ "title": entry.title });
        Entry::new(&entry.name, if text.is_empty() { entry.name.clone() } else { text }, Vec::new(), &fields)
    };
    Library::shipped().entries(kind).into_iter().map(entry).collect()
}

fn model(name: &str, spec: &ModelSpec) -> Entry {
    let mut parts: Vec<String> = Vec::new();
    parts.extend([&spec.title, &spec.task].into_iter().filter(|text| !text.is_empty()).cloned());
    parts.push(shape(spec.shape).to_owned());
    parts.extend(spec.weights_mb.map(|mb| format!("{mb} MB")));
    let variants: Vec<&String> = spec.variant.keys().collect();
    let fields = json!({
        "title": spec.title,
        "task": spec.task,
        "shape": spec.shape,
        "weights_mb": spec.weights_mb,
        "variants": variants,
    });
    Entry::new(name, parts.join(", "), Vec::new(), &fields)
}

fn model_page(name: &str, spec: &ModelSpec) -> String {
    let Entry { description, .. } = model(name, spec);
    let mut page = format!("{name}: {description}\n");
    for (variant, _) in &spec.variant {
        push(&mut page, format_args!("  variant {variant}\n"));
    }
    page
}

fn shape(shape: ModelShape) -> &'static str {
    match shape {
        ModelShape::OneShot => "one shot",
        ModelShape::Streaming => "streaming",
        ModelShape::Iterative => "iterative",
        ModelShape::Autoregressive => "autoregressive",
    }
}

fn policy(info: &PolicyInfo) -> Entry {
    let parameters: Vec<Value> =
        info.parameters.iter().map(|p| json!({ "name": p.name, "default": p.default, "meaning": p.meaning })).collect();
    let fields = json!({ "group": info.group, "parameters": parameters, "reference": info.reference });
    Entry::new(info.name, info.summary, parameter_lines(info), &fields)
}

/// `quantum_ms=1: …`
fn parameter_lines(info: &PolicyInfo) -> Vec<String> {
    let line = |p: &onbeat_policy::ParameterInfo| {
        let default = if p.default.is_empty() { String::new() } else { format!("={}", p.default) };
        format!("{}{default}: {}", p.name, p.meaning)
    };
    info.parameters.iter().map(line).collect()
}

/// The policy's page, or what it says about itself.
fn policy_page(info: &PolicyInfo) -> String {
    if let Some(page) = POLICY_PAGES.get_file(format!("{}.md", info.name)).and_then(include_dir::File::contents_utf8) {
        return page.to_owned();
    }
    let mut page = format!("# {}\n\n{}\n\n", info.name, info.summary);
    for line in parameter_lines(info) {
        push(&mut page, format_args!("* {line}\n"));
    }
    push(&mut page, format_args!("\nReference: {}\n", info.reference));
    page
}

fn metric(metric: Metric) -> Entry {
    let fields = json!({
        "short": metric.short(),
        "unit": metric.unit().symbol(),
        "of": scope(metric.scope()),
        "better": better(metric.better()),
    });
    Entry::new(metric.name(), metric.meaning(), Vec::new(), &fields)
}

fn metric_page(metric: Metric) -> String {
    let unit = metric.unit().symbol();
    let unit = if unit.is_empty() { "none" } else { unit };
    format!(
        "{}: {}\n\nHeading: {}\nUnit: {unit}\nOf: {}\nBetter: {}\n",
        metric.name(),
        metric.meaning(),
        metric.short(),
        scope(metric.scope()),
        better(metric.better()),
    )
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Run => "the run",
        Scope::Source => "each stream and session, and the run",
        Scope::Processor => "each processor, and the run",
    }
}

fn better(better: Better) -> &'static str {
    match better {
        Better::Lower => "lower",
        Better::Higher => "higher",
        Better::Neutral => "neither",
    }
}
