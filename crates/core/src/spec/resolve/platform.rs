//! The platform file becomes a [`Platform`].

use crate::id::{Id, IdVec, ProcessorId};
use crate::spec::check::Check;
use crate::spec::document::Document;
use crate::spec::error::SpecError;
use crate::spec::field::Field;
use crate::spec::{LinkSpec, PlatformSpec, ProcessorSpec, limits};
use crate::system::{Device, Division, Figure, Link, Platform, Processor, Swap};
use crate::units::{Bytes, Nanos};

use super::figures::{Sources, check_provenance};
use super::power;

/// A platform with what the rest of the resolution needs to know about it.
#[derive(Debug)]
pub(super) struct ResolvedPlatform {
    /// As the system has it.
    pub platform: Platform,
    /// Name in the file of each processor: the common one of identical units.
    pub common_names: IdVec<ProcessorId, String>,
    /// Bandwidth at which weights are loaded [bytes/ns].
    pub load_bandwidth: Option<f64>,
    /// Where its figures come from.
    pub figures: Vec<Figure>,
    /// Whether it stands in the scenario.
    pub inline: bool,
}

impl ResolvedPlatform {
    /// Whether a file's processor name means this processor.
    pub(super) fn means(&self, id: ProcessorId, name: &str) -> bool {
        self.platform.processors[id].name == name || self.common_names[id] == name
    }

    /// Whether there is a processor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.platform.processors.ids().any(|id| self.means(id, name))
    }

    /// Units of the processor that a file calls so, if it can be divided.
    pub(super) fn units_of(&self, name: &str) -> Option<u32> {
        let (_, processor) = self.platform.processors.enumerate().find(|&(id, _)| self.means(id, name))?;
        processor.division.map(|division| division.units)
    }

    /// An entry is for a number of units that its processor has.
    pub(super) fn check_units(&self, check: &mut Check<'_>, at: &Field, name: &str, units: u32) {
        for (id, processor) in self.platform.processors.enumerate().filter(|&(id, _)| self.means(id, name)) {
            let has = processor.division.map_or(1, |division| division.units);
            if units == 0 || (units > has && processor.division.is_some()) {
                let problem = format!("{units} units of `{}`, which has {has}", self.platform.processors[id].name);
                let help = match processor.division {
                    Some(_) => format!("must be 1 to {has}"),
                    None => "leave `units` out: this processor is not divided".to_owned(),
                };
                check.wrong(at, problem, help);
                return;
            }
        }
    }

    /// All names by which files may call the processors.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.common_names.iter().map(String::as_str).collect();
        names.dedup();
        for processor in &self.platform.processors {
            if !names.contains(&processor.name.as_str()) {
                names.push(&processor.name);
            }
        }
        names
    }
}

/// A platform as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlatformFile<'a> {
    /// The file.
    pub document: &'a Document,
    /// Its contents.
    pub spec: &'a PlatformSpec,
    /// Where the platform stands in the file.
    pub root: &'a Field,
    /// Whether that is a scenario.
    pub inline: bool,
}

const MEMORY_FIGURES: [&str; 7] =
    ["capacity_gb", "bandwidth_gbps", "handover_us", "load_gbps", "swap_gbps", "swap_us", "swap_gb"];
const PROCESSOR_FIGURES: [&str; 12] = [
    "switch_us",
    "preempt_us",
    "idle_w",
    "active_w",
    "bandwidth_gbps",
    "transition_us",
    "leakage_w",
    "peak_tops",
    "peak_tflops",
    "launch_us",
    "units",
    "repartition_us",
];

/// The platform, unless it is wrong.
pub(super) fn resolve(file: PlatformFile<'_>, errors: &mut Vec<SpecError>) -> Option<ResolvedPlatform> {
    let PlatformFile { document, spec, root, inline } = file;
    let before = errors.len();
    let mut check = Check::new(document, errors);
    let sources = Sources { table: &spec.source, inline };
    check.name(&root.key("name"), &spec.name);
    sources.check_table(&mut check, root);
    let mut figures = check_memory(&mut check, file, sources);
    let processors = root.key("processor");
    if spec.processor.is_empty() {
        check.wrong(&processors, "there is no processor", "a platform has at least one `[[processor]]`");
    }
    for (i, processor) in spec.processor.iter().enumerate() {
        figures.extend(check_processor(&mut check, &processors.index(i), processor, &spec.name, sources));
    }
    power::check_platform(&mut check, root, spec);
    for (i, link) in spec.link.iter().enumerate() {
        let at = root.key("link").index(i);
        check.number(&at, "latency_us", link.latency_us, &limits::OVERHEAD_US);
        check.optional(&at, "bandwidth_gbps", link.bandwidth_gbps, &limits::BANDWIDTH_GBPS);
        sources.check_key(&mut check, &at.key("source"), "link", link.source.as_deref());
        let what = format!("{}: link from {} to {}", spec.name, link.from, link.to);
        figures.push(sources.figure(what, link.source.as_deref(), None));
    }
    // Names and counts must be right before units are numbered.
    if check.errors.len() > before {
        return None;
    }
    let (processors, common_names) = number_units(&mut check, &processors, &spec.processor);
    let mut platform = Platform {
        name: spec.name.clone(),
        title: if spec.title.is_empty() { spec.name.clone() } else { spec.title.clone() },
        processors,
        capacity: spec.memory.capacity_gb.map(|gb| Bytes::from_mb(gb * 1e3)),
        bandwidth: spec.memory.bandwidth_gbps,
        links: IdVec::new(),
        power_cap: spec.power.cap_w,
        kv_block: spec.memory.kv_block_tokens,
        swap: spec.memory.swap_gbps.map(|gbps| Swap {
            capacity: spec.memory.swap_gb.map(|gb| Bytes::from_mb(gb * 1e3)),
            link: Link { latency: Nanos::from_us(spec.memory.swap_us.unwrap_or(0.0)), bandwidth: Some(gbps) },
        }),
    };
    power::resolve(file, &mut platform);
    platform.links = default_links(&platform, Nanos::from_us(spec.memory.handover_us));
    let mut resolved =
        ResolvedPlatform { platform, common_names, load_bandwidth: spec.memory.load_gbps, figures, inline };
    set_links(&mut check, &root.key("link"), &spec.link, &mut resolved);
    (check.errors.len() == before).then_some(resolved)
}

fn check_memory(check: &mut Check<'_>, file: PlatformFile<'_>, sources: Sources<'_>) -> Vec<Figure> {
    let memory = &file.spec.memory;
    let at = file.root.key("memory");
    check.optional(&at, "capacity_gb", memory.capacity_gb, &limits::MEMORY_GB);
    check.optional(&at, "bandwidth_gbps", memory.bandwidth_gbps, &limits::BANDWIDTH_GBPS);
    check.number(&at, "handover_us", memory.handover_us, &limits::OVERHEAD_US);
    check.optional(&at, "load_gbps", memory.load_gbps, &limits::BANDWIDTH_GBPS);
    check.optional(&at, "kv_block_tokens", memory.kv_block_tokens.map(f64::from), &limits::TOKENS);
    check.optional(&at, "swap_gbps", memory.swap_gbps, &limits::BANDWIDTH_GBPS);
    check.optional(&at, "swap_us", memory.swap_us, &limits::OVERHEAD_US);
    check.optional(&at, "swap_gb", memory.swap_gb, &limits::MEMORY_GB);
    for (key, given) in [("swap_us", memory.swap_us.is_some()), ("swap_gb", memory.swap_gb.is_some())] {
        if given && memory.swap_gbps.is_none() {
            check.wrong(
                &at.key(key),
                format!("`{key}` without `swap_gbps`"),
                "give the bandwidth of the slower memory",
            );
        }
    }
    check_provenance(check, &at, &memory.provenance, &MEMORY_FIGURES, sources);
    let given = [
        ("capacity_gb", memory.capacity_gb.is_some()),
        ("bandwidth_gbps", memory.bandwidth_gbps.is_some()),
        ("handover_us", memory.handover_us != 0.0),
        ("load_gbps", memory.load_gbps.is_some()),
        ("swap_gbps", memory.swap_gbps.is_some()),
        ("swap_us", memory.swap_us.is_some()),
        ("swap_gb", memory.swap_gb.is_some()),
    ];
    let what = format!("{}: memory", file.spec.name);
    given_figures(check, &at, &given, &memory.provenance, sources, &what)
}

fn check_processor(
    check: &mut Check<'_>,
    at: &Field,
    spec: &ProcessorSpec,
    platform: &str,
    sources: Sources<'_>,
) -> Vec<Figure> {
    check.name(&at.key("name"), &spec.name);
    check.number(at, "count", f64::from(spec.count), &limits::UNITS);
    check.number(at, "slots", f64::from(spec.slots), &limits::UNITS);
    check.number(at, "units", f64::from(spec.units), &limits::UNITS);
    check.number(at, "repartition_us", spec.repartition_us, &limits::OVERHEAD_US);
    check_division(check, at, spec);
    check.number(at, "switch_us", spec.switch_us, &limits::OVERHEAD_US);
    check.number(at, "preempt_us", spec.preempt_us, &limits::OVERHEAD_US);
    check.number(at, "idle_w", spec.idle_w, &limits::POWER_W);
    check.optional(at, "active_w", spec.active_w, &limits::POWER_W);
    check.optional(at, "bandwidth_gbps", spec.bandwidth_gbps, &limits::BANDWIDTH_GBPS);
    check.optional(at, "peak_tops", spec.peak_tops, &limits::PEAK_TOPS);
    check.optional(at, "peak_tflops", spec.peak_tflops, &limits::PEAK_TOPS);
    check.optional(at, "launch_us", spec.launch_us, &limits::OVERHEAD_US);
    check_provenance(check, at, &spec.provenance, &PROCESSOR_FIGURES, sources);
    let given = [
        ("switch_us", spec.switch_us != 0.0),
        ("preempt_us", spec.preempt_us != 0.0),
        ("idle_w", spec.idle_w != 0.0),
        ("active_w", spec.active_w.is_some()),
        ("bandwidth_gbps", spec.bandwidth_gbps.is_some()),
        ("transition_us", spec.transition_us != 0.0),
        ("leakage_w", spec.leakage_w != 0.0),
        ("repartition_us", spec.repartition_us != 0.0),
    ];
    let what = format!("{platform}: {}", spec.name);
    let figures = given_figures(check, at, &given, &spec.provenance, sources, &what);
    // These must have sources as well, but no run depends on them: they are no figures of the system.
    let estimates = [
        ("peak_tops", spec.peak_tops.is_some()),
        ("peak_tflops", spec.peak_tflops.is_some()),
        ("launch_us", spec.launch_us.is_some()),
    ];
    given_figures(check, at, &estimates, &spec.provenance, sources, &what);
    let mut figures = figures;
    figures.extend(power::check(check, at, spec, platform, sources));
    figures
}

/// A processor that is divided has units in place of slots, and is simulated or rehearsed.
fn check_division(check: &mut Check<'_>, at: &Field, spec: &ProcessorSpec) {
    if spec.units > 1 && spec.slots != 1 {
        let help = "runs side by side take units: leave `slots` out";
        check.wrong(&at.key("slots"), "a processor has units or slots", help);
    }
    if spec.units <= 1 && spec.repartition_us != 0.0 {
        let help = "say how many `units` it has";
        check.wrong(&at.key("repartition_us"), "`repartition_us` of a processor that is not divided", help);
    }
    if spec.units > 1 && spec.device.as_deref().is_some_and(|device| device != "virtual") {
        let help = "no backend can divide a device: leave `units` out, or rehearse the processor with `virtual`";
        check.wrong(&at.key("device"), "a real device cannot be divided into units", help);
    }
}

/// The figures that are given, each of which must have a source.
fn given_figures(
    check: &mut Check<'_>,
    at: &Field,
    given: &[(&str, bool)],
    provenance: &indexmap::IndexMap<String, String>,
    sources: Sources<'_>,
    what: &str,
) -> Vec<Figure> {
    let mut figures = Vec::new();
    for &(figure, _) in given.iter().filter(|(_, given)| *given) {
        let key = provenance.get(figure).map(String::as_str);
        if key.is_none() && !sources.inline {
            let help = format!("every figure needs one: provenance = {{ {figure} = \"a key of [source]\" }}");
            check.wrong(&at.key(figure), format!("`{figure}` has no source"), help);
        }
        figures.push(sources.figure(format!("{what} {figure}"), key, None));
    }
    figures
}

/// One processor per unit, and the name in the file of each.
fn number_units(
    check: &mut Check<'_>,
    field: &Field,
    specs: &[ProcessorSpec],
) -> (IdVec<ProcessorId, Processor>, IdVec<ProcessorId, String>) {
    let before = check.errors.len();
    let (mut units, mut common, mut fields) = (IdVec::new(), IdVec::new(), Vec::new());
    for (i, spec) in specs.iter().enumerate() {
        for unit in 0..spec.count {
            let name = if spec.count > 1 { format!("{}{unit}", spec.name) } else { spec.name.clone() };
            let first_point = spec.operating_point.first().and_then(|point| point.active_w);
            units.push(Processor {
                name,
                kind: spec.kind,
                group: i as u32,
                slots: spec.slots,
                division: (spec.units > 1)
                    .then(|| Division { units: spec.units, repartition: Nanos::from_us(spec.repartition_us) }),
                preemption: spec.preemption,
                switch_cost: Nanos::from_us(spec.switch_us),
                preempt_cost: Nanos::from_us(spec.preempt_us),
                idle_w: spec.idle_w,
                active_w: spec.active_w.or(first_point),
                bandwidth: spec.bandwidth_gbps,
                device: device_of(spec, unit),
                power: None,
            });
            common.push(spec.name.clone());
            fields.push(field.index(i).key("name"));
        }
    }
    check.distinct("processors", specs.iter().enumerate().map(|(i, p)| (field.index(i).key("name"), p.name.as_str())));
    let unit_names: Vec<(Field, &str)> =
        fields.into_iter().zip(units.iter().map(|p: &Processor| p.name.as_str())).collect();
    // Two groups of the same name were reported already.
    if check.errors.len() == before {
        check.distinct("processors", unit_names);
    }
    if units.len() > limits::PROCESSORS_MAX {
        check.wrong(
            field,
            format!("{} processors", units.len()),
            format!("must be at most {}", limits::PROCESSORS_MAX),
        );
    }
    (units, common)
}

/// What executes on unit number `unit` of a group in a real run.
fn device_of(spec: &ProcessorSpec, unit: u32) -> Option<Device> {
    let name = spec.device.clone()?;
    let cores = match spec.cores.get(unit as usize) {
        Some(&core) if spec.count > 1 => vec![core],
        _ => spec.cores.clone(),
    };
    Some(Device { name, cores, options: spec.options.iter().map(|(k, v)| (k.clone(), v.clone())).collect() })
}

fn default_links(platform: &Platform, handover: Nanos) -> IdVec<ProcessorId, IdVec<ProcessorId, Link>> {
    let other = Link { latency: handover, bandwidth: None };
    let ids = || platform.processors.ids();
    ids().map(|from| ids().map(|to| if from == to { Link::default() } else { other }).collect()).collect()
}

/// Puts the file's links over the default ones. A link of a group holds for all of its units.
fn set_links(check: &mut Check<'_>, field: &Field, links: &[LinkSpec], resolved: &mut ResolvedPlatform) {
    let count = resolved.platform.processors.len();
    let mut given = vec![vec![false; count]; count];
    for (i, link) in links.iter().enumerate() {
        let at = field.index(i);
        let mut known = true;
        for (key, name) in [("from", &link.from), ("to", &link.to)] {
            if !resolved.has(name) {
                check.unknown(&at.key(key), "processor", name, resolved.names());
                known = false;
            }
        }
        if !known {
            continue;
        }
        let ids: Vec<ProcessorId> = (0..count).map(ProcessorId::new).collect();
        let all = |name: &str| ids.iter().copied().filter(|&id| resolved.means(id, name)).collect::<Vec<_>>();
        let (from, to) = (all(&link.from), all(&link.to));
        let one_way = from.iter().flat_map(|&a| to.iter().map(move |&b| (a, b)));
        let mut pairs: Vec<(ProcessorId, ProcessorId)> = one_way.filter(|(a, b)| a != b).collect();
        if pairs.is_empty() {
            check.wrong(&at.key("to"), "the link leads to where it starts", "a link connects two processors");
        }
        if link.both_ways {
            let back: Vec<_> = pairs.iter().map(|&(a, b)| (b, a)).filter(|pair| !pairs.contains(pair)).collect();
            pairs.extend(back);
        }
        for (a, b) in pairs {
            if std::mem::replace(&mut given[a.index()][b.index()], true) {
                let problem = format!("there is a second link from `{}` to `{}`", link.from, link.to);
                check.wrong(&at, problem, "links hold both ways unless `both_ways = false`");
                break;
            }
            let value = Link { latency: Nanos::from_us(link.latency_us), bandwidth: link.bandwidth_gbps };
            resolved.platform.links[a][b] = value;
        }
    }
}
