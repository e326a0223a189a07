//! A scenario, a platform and profiles become a [`System`].

use crate::power::Governor;
use crate::spec::ScenarioSpec;
use crate::spec::check::Check;
use crate::spec::document::Document;
use crate::spec::error::{SpecError, SpecErrors};
use crate::spec::field::Field;
use crate::spec::files::ReadFile;
use crate::spec::limits;
use crate::spec::{ProfileSpec, VariationKind};
use crate::system::{System, Variation};
use crate::units::Nanos;

use super::chains;
use super::content;
use super::models::{Catalogue, Layer};
use super::nodes::Builder;
use super::notes::Run;
use super::platform::{self, PlatformFile};
use super::power;
use super::sources::{self, Around};
use super::tools;

/// Switches that are not part of any file.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Values that replace those of the scenario's file, `path=value` each; paths that start with `platform.` mean the platform's
    /// file, wherever it stands. See [`Override`](crate::spec::Override).
    pub overrides: Vec<String>,
    /// Length of the run instead of the scenario's.
    pub duration: Option<Nanos>,
    /// Whether processors slow each other down on the memory bus. Default: yes.
    pub contention: bool,
    /// Factor on all bytes moved over the bus, > 0: shows how much a result depends on them. Default: 1.
    pub bytes_scale: f64,
    /// More profile files (paths). They take precedence over the shipped ones, later ones over earlier ones; the scenario's own
    /// costs take precedence over all.
    pub profiles: Vec<String>,
    /// Who chooses the operating points of all processors, instead of whom the platform names.
    pub governor: Option<Governor>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            overrides: Vec::new(),
            duration: None,
            contention: true,
            bytes_scale: 1.0,
            profiles: Vec::new(),
            governor: None,
        }
    }
}

/// Everything that a system is made of, read and typed.
#[derive(Clone, Copy)]
pub(in crate::spec) struct Parts<'a> {
    /// The scenario's file.
    pub document: &'a Document,
    /// Its contents.
    pub scenario: &'a ScenarioSpec,
    /// The scenario's own models and costs.
    pub own: &'a ProfileSpec,
    /// The platform's file.
    pub platform_document: &'a Document,
    /// Its contents.
    pub platform: &'a crate::spec::PlatformSpec,
    /// Whether the platform stands in the scenario.
    pub platform_inline: bool,
    /// The users' profiles, those that take precedence first.
    pub users: &'a [(Document, ProfileSpec)],
    /// The shipped profiles and models.
    pub shipped: &'a [&'a (Document, ProfileSpec)],
    /// Reads traces.
    pub files: &'a dyn ReadFile,
}

/// Resolves a scenario on a platform.
pub(in crate::spec) fn resolve(parts: Parts<'_>, options: &Options) -> Result<System, SpecErrors> {
    let mut errors = Vec::new();
    if !options.bytes_scale.is_finite() || options.bytes_scale <= 0.0 || options.bytes_scale > 1e6 {
        let problem = format!("the factor on bytes moved is {}", options.bytes_scale);
        errors.push(SpecError::elsewhere("", "", problem, Some("must be > 0 and ≤ 1000000".to_owned())));
    }
    let root = if parts.platform_inline { Field::root().key("platform") } else { Field::root() };
    let file = PlatformFile {
        document: parts.platform_document,
        spec: parts.platform,
        root: &root,
        inline: parts.platform_inline,
    };
    let platform = platform::resolve(file, &mut errors);
    let catalogue = Catalogue { layers: layers(parts) };
    catalogue.check(platform.as_ref(), &mut errors);

    let scenario = parts.scenario;
    let mut check = Check::new(parts.document, &mut errors);
    let (duration, variation) = check_scenario(&mut check, scenario, options);
    tools::check_adapters(&mut check, scenario, &catalogue);
    let chains = chains::resolve(&mut check, scenario, &catalogue);
    let contents = content::resolve(&mut check, scenario);
    let around = Around { scenario, chains: &chains, catalogue: &catalogue, files: parts.files };
    let planned = sources::resolve(&mut check, around);
    let Some(mut platform) = platform.filter(|_| errors.is_empty()) else {
        return Err(SpecErrors::new(errors));
    };
    if let Some(governor) = options.governor {
        power::govern(&mut platform.platform, governor);
    }

    let mut builder = Builder::new(parts.document, scenario, &catalogue, &platform, options.bytes_scale, variation);
    for name in chains.keys().filter(|name| {
        !scenario.stream.iter().any(|s| s.chain.as_ref() == Some(*name))
            && !scenario.session.iter().any(|s| s.chain.as_ref() == Some(*name))
    }) {
        builder.notes.warn(format!("No stream and no session uses the chain `{name}`."));
    }
    for (i, name) in scenario.content.keys().enumerate() {
        if !planned.iter().any(|planned| planned.source.content == u32::try_from(i).ok()) {
            builder.notes.warn(format!("No stream looks at `{name}`."));
        }
    }
    if !platform.inline && !scenario.runs_on.is_empty() && !scenario.runs_on.contains(&platform.platform.name) {
        let text = format!(
            "The scenario was not made for `{}`: it names {}.",
            platform.platform.name,
            scenario.runs_on.join(", ")
        );
        builder.notes.warn(text);
    }
    let choice = platform.platform.processors.iter().any(|p| p.power.as_ref().is_some_and(|m| m.points.len() > 1));
    if let Some(governor) = options.governor.filter(|_| !choice) {
        builder.notes.warn(format!(
            "The governor `{}` has nothing to choose: no processor of `{}` has several operating points.",
            governor.name(),
            platform.platform.name
        ));
    }
    for (_, profile) in parts.users {
        if let Some(other) = profile.platform.as_ref().filter(|&other| *other != platform.platform.name) {
            builder.notes.warn(format!(
                "A profile given is for `{other}`: its costs are not used on `{}`.",
                platform.platform.name
            ));
        }
    }
    for source in planned {
        builder.add(source);
    }
    if !builder.errors.is_empty() {
        return Err(SpecErrors::new(builder.errors));
    }
    let run = Run { contention: options.contention, bytes_scale: options.bytes_scale, variation };
    let (assumptions, warnings) = builder.notes.finish(&platform.platform, run);
    let system = System {
        scenario: scenario.name.clone(),
        title: if scenario.title.is_empty() { scenario.name.clone() } else { scenario.title.clone() },
        description: scenario.description.clone(),
        models: builder.models,
        nodes: builder.nodes,
        sources: builder.sources,
        contents,
        duration,
        warm_up: Nanos::from_secs(scenario.warm_up_s),
        variation,
        preloaded: scenario.preloaded,
        contention: options.contention,
        figures: builder.figures,
        assumptions,
        warnings,
        platform: platform.platform,
    };
    let mut errors = Vec::new();
    power::check_known(parts.platform_document, &root, &system, &mut errors);
    if !errors.is_empty() {
        return Err(SpecErrors::new(errors));
    }
    let sound = system.validate();
    sound.map_err(|problem| {
        SpecError::elsewhere(
            parts.document.file(),
            "",
            format!("internal: {problem}"),
            Some("please report this file".to_owned()),
        )
    })?;
    Ok(system)
}

/// All files with models and costs, those that take precedence first.
fn layers(parts: Parts<'_>) -> Vec<Layer<'_>> {
    let name = parts.platform.name.as_str();
    let inline = Layer {
        document: parts.document,
        spec: parts.own,
        inline: true,
        for_platform: true,
        all_processors: parts.platform_inline,
        rank: 0,
    };
    let users = parts.users.iter().enumerate().map(|(i, (document, spec))| Layer {
        document,
        spec,
        inline: false,
        for_platform: spec.platform.as_deref().is_none_or(|platform| platform == name),
        all_processors: spec.platform.is_some(),
        rank: 1 + i,
    });
    let rank = 1 + parts.users.len();
    let shipped = parts.shipped.iter().map(|(document, spec)| Layer {
        document,
        spec,
        inline: false,
        // An inline platform that happens to have a shipped one's name is another platform.
        for_platform: spec.platform.as_deref() == Some(name) && !parts.platform_inline,
        all_processors: true,
        rank,
    });
    std::iter::once(inline).chain(users).chain(shipped).collect()
}

/// Checks what concerns the scenario as a whole; its duration and variation.
fn check_scenario(check: &mut Check<'_>, scenario: &ScenarioSpec, options: &Options) -> (Nanos, Variation) {
    let root = Field::root();
    check.name(&root.key("name"), &scenario.name);
    let sound = check.number(&root, "duration_s", scenario.duration_s, &limits::DURATION_S);
    let duration = options.duration.unwrap_or_else(|| Nanos::from_secs(scenario.duration_s));
    if !sound {
        // Reported.
    } else if duration == Nanos::ZERO || duration > Nanos::from_secs(limits::DURATION_S.most) {
        let problem = format!("a run of {duration} is out of range");
        check.wrong(&root.key("duration_s"), problem, limits::DURATION_S.describe());
    } else if check.number(&root, "warm_up_s", scenario.warm_up_s, &limits::TIME_S)
        && Nanos::from_secs(scenario.warm_up_s) >= duration
    {
        let problem = format!("the warm-up of {} s is not shorter than the run of {duration}", scenario.warm_up_s);
        check.wrong(&root.key("warm_up_s"), problem, "shorten the warm-up or lengthen the run");
    }
    let variation = &scenario.variation;
    let at = root.key("variation");
    check.number(&at, "spread", variation.spread, &limits::SPREAD);
    match variation.kind {
        VariationKind::Uniform if variation.spread >= 1.0 => {
            check.wrong(
                &at.key("spread"),
                format!("{} is out of range", variation.spread),
                "the half width of a uniform variation is below 1",
            );
        }
        VariationKind::None | VariationKind::Exponential if variation.spread != 0.0 => {
            check.wrong(
                &at.key("spread"),
                "`spread` has no use with this kind of variation",
                "use `lognormal` or `uniform`",
            );
        }
        _ => {}
    }
    for (i, phase) in scenario.phase.iter().enumerate() {
        let at = root.key("phase").index(i);
        check.name(&at.key("name"), &phase.name);
        let sound = check.number(&at, "start_s", phase.start_s, &limits::TIME_S)
            & check.number(&at, "end_s", phase.end_s, &limits::TIME_S);
        if sound && phase.end_s <= phase.start_s {
            check.wrong(
                &at.key("end_s"),
                format!("the phase ends at {} s, not after its start at {} s", phase.end_s, phase.start_s),
                "",
            );
        }
    }
    let names = scenario
        .phase
        .iter()
        .enumerate()
        .map(|(i, phase)| (root.key("phase").index(i).key("name"), phase.name.as_str()));
    check.distinct("phases", names);
    (duration, Variation { kind: variation.kind, spread: variation.spread })
}
