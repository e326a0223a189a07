//! What the command line means: names become systems, lists become policies and seeds. Nothing has been simulated yet.

use onbeat_core::spec::{FileKind, Library, Options, ScenarioSpec, SpecErrors, is_path};
use onbeat_core::system::System;

use crate::args::{CompareArgs, DEFAULT_PLATFORM, SystemArgs};
use crate::disk::Disk;
use crate::failure::Failure;
use crate::policies;

/// Stands for every shipped scenario or platform.
pub(crate) const ALL: &str = "all";

/// Everything that `compare` is to do.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Scenarios resolved on platforms, in the order asked for.
    pub(crate) systems: Vec<System>,
    /// Pairs of an `all` that do not fit together.
    pub(crate) skipped: Vec<Skipped>,
    /// Policies with their parameters.
    pub(crate) policies: Vec<String>,
    /// The seeds, the same for every policy.
    pub(crate) seeds: Vec<u64>,
}

/// A pair of an `all` that does not fit together.
#[derive(Clone, Debug)]
pub(crate) struct Skipped {
    /// Scenario.
    pub(crate) scenario: String,
    /// Platform.
    pub(crate) platform: String,
    /// Why, in one line.
    pub(crate) reason: String,
}

/// What `compare` is to do.
pub(crate) fn compare(args: &CompareArgs) -> Result<Plan, Failure> {
    let policies = policies::select(&args.policies)?;
    let Pairs { systems, skipped } = pairs(&args.scenarios, &args.platforms, &args.system)?;
    // A policy's parameters may name stages and processors; mistakes should show before anything runs.
    for system in &systems {
        for policy in &policies {
            policies::make(policy, system)?;
        }
    }
    let seeds = (0..u64::from(args.seeds)).map(|i| args.seed.wrapping_add(i)).collect();
    Ok(Plan { systems, skipped, policies, seeds })
}

/// Scenarios resolved on platforms.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    /// Those that fit together.
    pub(crate) systems: Vec<System>,
    /// Pairs of an `all` that do not.
    pub(crate) skipped: Vec<Skipped>,
}

/// Resolves scenarios on platforms; both are names, paths or `all`.
///
/// Pairs of an `all` that do not fit together are skipped; pairs of which both are named must fit.
pub(crate) fn pairs(scenarios: &[String], platforms: &[String], args: &SystemArgs) -> Result<Pairs, Failure> {
    let disk = Disk::default();
    let options = options(args);
    let scenario_names = expand(scenarios, FileKind::Scenario);
    let platform_names = expand(platforms, FileKind::Platform);
    let mut pairs = Pairs::default();
    let mut failures: Vec<Failure> = Vec::new();
    for (scenario, scenario_of_all) in &scenario_names {
        let spec = Library::shipped().scenario(scenario, &disk).map_err(|errors| disk.failure(errors))?;
        for (platform, of_all) in platforms_for(&spec, &platform_names) {
            let resolved = Library::shipped().resolve(scenario, platform.as_deref(), &options, &disk);
            match resolved {
                Ok(system) => pairs.systems.push(system),
                Err(errors) if of_all || *scenario_of_all => {
                    let reason = one_line(&errors);
                    let platform = platform.unwrap_or_default();
                    pairs.skipped.push(Skipped { scenario: scenario.clone(), platform, reason });
                    failures.push(disk.failure(errors));
                }
                Err(errors) => return Err(disk.failure(errors)),
            }
        }
    }
    // Nothing fits: then the reasons are the result.
    match failures.into_iter().next() {
        Some(first) if pairs.systems.is_empty() => Err(first),
        _ => Ok(pairs),
    }
}

/// One scenario on one platform.
pub(crate) fn one_system(scenario: &str, platform: Option<&str>, args: &SystemArgs) -> Result<System, Failure> {
    let platforms: Vec<String> = platform.map(str::to_owned).into_iter().collect();
    let pairs = pairs(&[scenario.to_owned()], &platforms, args)?;
    let mut systems = pairs.systems.into_iter();
    match (systems.next(), systems.next()) {
        (Some(system), None) => Ok(system),
        _ => Err(Failure::usage("one scenario on one platform is needed here", "`onbeat compare` takes several")),
    }
}

/// A scenario and a platform that `check` looks at.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Scenario, as named.
    pub(crate) scenario: String,
    /// Platform, as named; empty for the scenario's own.
    pub(crate) platform: String,
    /// Whether they are meant to fit: both are named, or the scenario says that it runs there.
    pub(crate) meant: bool,
    /// The system, or what prevents it.
    pub(crate) resolved: Result<System, SpecErrors>,
}

/// The pairs that `check` looks at: without platforms, all that the scenario says it runs on, the usual one first.
pub(crate) fn candidates(
    scenarios: &[String],
    platforms: &[String],
    args: &SystemArgs,
) -> Result<Vec<Candidate>, Failure> {
    let disk = Disk::default();
    let options = options(args);
    let asked = expand(platforms, FileKind::Platform);
    let mut candidates = Vec::new();
    for (scenario, _) in expand(scenarios, FileKind::Scenario) {
        let spec = Library::shipped().scenario(&scenario, &disk).map_err(|errors| disk.failure(errors))?;
        let mut pairs = platforms_for(&spec, &asked);
        if asked.is_empty() && spec.platform.is_none() {
            let first = pairs.first().and_then(|(name, _)| name.clone()).or_else(|| spec.runs_on.first().cloned());
            let others = spec.runs_on.iter().filter(|&name| Some(name) != first.as_ref()).cloned();
            pairs = first.iter().cloned().chain(others).map(|name| (Some(name), false)).collect();
            if pairs.is_empty() {
                pairs.push((None, false));
            }
        }
        for (platform, of_all) in pairs {
            let resolved = Library::shipped().resolve(&scenario, platform.as_deref(), &options, &disk);
            if resolved.is_err() && disk.has_failed() {
                return resolved.map(|_| candidates).map_err(|errors| disk.failure(errors));
            }
            let platform = platform.unwrap_or_default();
            let meant = !of_all || spec.runs_on.contains(&platform);
            candidates.push(Candidate { scenario: scenario.clone(), platform, meant, resolved });
        }
    }
    Ok(candidates)
}

/// Names with whether they came from `all`, each once.
fn expand(names: &[String], kind: FileKind) -> Vec<(String, bool)> {
    let mut expanded: Vec<(String, bool)> = Vec::new();
    for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        let these = if name == ALL {
            Library::shipped().names(kind).into_iter().map(|name| (name.to_owned(), true)).collect()
        } else {
            vec![(name.to_owned(), false)]
        };
        for (name, of_all) in these {
            if !expanded.iter().any(|(known, _)| *known == name) {
                expanded.push((name, of_all));
            }
        }
    }
    expanded
}

/// Where a scenario is to run, and whether that was an `all`. `None`: on its own platform.
fn platforms_for(scenario: &ScenarioSpec, asked: &[(String, bool)]) -> Vec<(Option<String>, bool)> {
    let own = scenario.platform.is_some();
    if asked.is_empty() {
        // Not the first of `runs_on` alone: the same platform for every scenario that runs on it is easier to remember.
        let usual = !own && scenario.runs_on.iter().any(|name| name == DEFAULT_PLATFORM);
        return vec![(usual.then(|| DEFAULT_PLATFORM.to_owned()), false)];
    }
    if own && asked.iter().all(|(_, of_all)| *of_all) {
        // A scenario with its own platform is not meant for the shipped ones.
        return vec![(None, true)];
    }
    asked.iter().map(|(name, of_all)| (Some(name.clone()), *of_all)).collect()
}

/// The options that are part of no file.
fn options(args: &SystemArgs) -> Options {
    let SystemArgs { duration, set, profiles, no_contention, bytes_scale, governor } = args;
    Options {
        overrides: set.clone(),
        duration: *duration,
        contention: !no_contention,
        governor: *governor,
        bytes_scale: *bytes_scale,
        profiles: profiles.iter().map(|path| as_path(&path.to_string_lossy())).collect(),
    }
}

/// `--profile` always takes a path, never the name of a shipped file.
fn as_path(text: &str) -> String {
    if is_path(text) { text.to_owned() } else { format!("./{text}") }
}

/// The first mistake, and how many there are.
pub(crate) fn one_line(errors: &SpecErrors) -> String {
    let first = errors.errors.first().map(|error| error.problem.clone()).unwrap_or_default();
    match errors.errors.len() {
        0 | 1 => first,
        n => format!("{first} (and {} more)", n - 1),
    }
}

/// The command line that gives the same results: only what makes a difference, in a fixed order.
pub(crate) fn command_line(args: &CompareArgs) -> String {
    let mut words = vec!["onbeat".to_owned(), "compare".to_owned(), args.scenarios.join(",")];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if !args.platforms.is_empty() {
        option("--platform", args.platforms.join(","));
    }
    option("--policy", args.policies.join(","));
    option("--seeds", args.seeds.to_string());
    option("--seed", args.seed.to_string());
    let SystemArgs { duration, set, profiles, no_contention, bytes_scale, governor } = &args.system;
    if let Some(duration) = duration {
        option("--duration", format!("{}s", duration.as_secs()));
    }
    for change in set {
        option("--set", change.clone());
    }
    for profile in profiles {
        option("--profile", profile.display().to_string());
    }
    if let Some(governor) = governor {
        option("--governor", governor.name().to_owned());
    }
    if *bytes_scale != 1.0 {
        option("--bytes-scale", bytes_scale.to_string());
    }
    if *no_contention {
        words.push("--no-contention".to_owned());
    }
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// As a POSIX shell needs it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._=,:/+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quote("edf:a=1,llf"), "edf:a=1,llf");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
