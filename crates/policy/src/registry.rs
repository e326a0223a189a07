//! All policies by name. A new policy is one file, one line in [`all`], one page and one scenario test.

use onbeat_core::policy::Policy;
use onbeat_core::suggest::closest;
use onbeat_core::system::System;
use thiserror::Error;

use crate::parameters::Parameters;
use crate::{
    attention_offload, best_effort, cbs, cfs, chain_edf, decode_first, dm, edf, edzl, eft, fcfs, fixed_priority, heft,
    hetero_split, k_edf, latency_greedy, laxity, llf, max_min, mct, min_min, mlfq, npu_prefill, olb, onbeat, p_edf,
    pd_adaptive, predicted_sjf, prefill_first, round_robin, sjf, skip_join_mlfq, skip_over, speculative, srpt,
    static_mapping, sufferage,
};

/// How a policy is made.
pub(crate) type Build = fn(&Parameters<'_>, &System) -> Result<Box<dyn Policy>, PolicyError>;

/// What a policy says about itself.
#[derive(Clone, Copy, Debug)]
pub struct PolicyInfo {
    /// Name on the command line and in files; the page is `docs/policies/NAME.md`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Family: `RTGen-style`, `real-time`, `multi-DNN`, `runtime` (what today's runtimes do), `generative`, `DAG`, `XSched` or
    /// `contention`.
    pub group: &'static str,
    /// Parameters, in the order of the page.
    pub parameters: &'static [ParameterInfo],
    /// Where the policy comes from.
    pub reference: &'static str,
    pub(crate) build: Build,
}

/// A parameter of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Name.
    pub name: &'static str,
    /// Value where none is given, as it would be written; empty: none.
    pub default: &'static str,
    /// What it means, with unit and allowed values.
    pub meaning: &'static str,
}

/// Why a policy cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No policy has this name.
    #[error("there is no policy `{name}`{}; policies are {}", did_you_mean(.suggestion.as_ref()), .known.join(", "))]
    UnknownPolicy {
        /// What was asked for.
        name: String,
        /// All names.
        known: Vec<&'static str>,
        /// The closest name.
        suggestion: Option<String>,
    },
    /// The policy has no such parameter.
    #[error("policy `{policy}` has no parameter `{parameter}`{}; {}", did_you_mean(.suggestion.as_ref()), parameters(.allowed))]
    UnknownParameter {
        /// The policy.
        policy: &'static str,
        /// What was given.
        parameter: String,
        /// Its parameters.
        allowed: Vec<&'static str>,
        /// The closest name.
        suggestion: Option<String>,
    },
    /// A parameter is given twice.
    #[error("policy `{policy}`: parameter `{parameter}` is given twice")]
    RepeatedParameter {
        /// The policy.
        policy: &'static str,
        /// The parameter.
        parameter: String,
    },
    /// Something after the colon is not `name=value`.
    #[error("policy `{policy}`: `{text}` is not of the form name=value (as in `edf:preemptive=false`)")]
    Malformed {
        /// The policy.
        policy: &'static str,
        /// What was given.
        text: String,
    },
    /// A value that the parameter does not take.
    #[error("policy `{policy}`: parameter `{parameter}` cannot be `{value}`; it takes {allowed}")]
    BadValue {
        /// The policy.
        policy: &'static str,
        /// The parameter.
        parameter: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// A value names something that the scenario or the platform does not have.
    #[error("policy `{policy}`: parameter `{parameter}`: there is no {kind} `{name}`{}; there are {}", did_you_mean(.suggestion.as_ref()), .known.join(", "))]
    UnknownName {
        /// The policy.
        policy: &'static str,
        /// The parameter.
        parameter: &'static str,
        /// What kind of thing is meant.
        kind: &'static str,
        /// What was given.
        name: String,
        /// What there is.
        known: Vec<String>,
        /// The closest name.
        suggestion: Option<String>,
    },
    /// A stage is put on a processor that cannot run it.
    #[error("policy `{policy}`: parameter `{parameter}`: stage `{stage}` cannot run on `{processor}`; it runs on {}", .allowed.join(", "))]
    CannotRunThere {
        /// The policy.
        policy: &'static str,
        /// The parameter.
        parameter: &'static str,
        /// The stage.
        stage: String,
        /// The processor.
        processor: String,
        /// Processors that can run it.
        allowed: Vec<String>,
    },
}

fn did_you_mean(suggestion: Option<&String>) -> String {
    suggestion.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

fn parameters(allowed: &[&str]) -> String {
    if allowed.is_empty() { "it has none".to_owned() } else { format!("its parameters are {}", allowed.join(", ")) }
}

/// All policies, in the order in which they are listed.
static POLICIES: &[PolicyInfo] = &[
    static_mapping::INFO,
    fcfs::INFO,
    round_robin::INFO,
    edf::INFO,
    eft::INFO,
    fixed_priority::INFO,
    llf::INFO,
    p_edf::INFO,
    sjf::INFO,
    latency_greedy::INFO,
    dm::INFO,
    edzl::INFO,
    chain_edf::INFO,
    cbs::INFO,
    skip_over::INFO,
    crate::mk_firm::INFO,
    crate::mixed_criticality::INFO,
    k_edf::INFO,
    laxity::INFO,
    mlfq::INFO,
    cfs::INFO,
    onbeat::INFO,
    heft::INFO,
    min_min::INFO,
    max_min::INFO,
    sufferage::INFO,
    mct::INFO,
    olb::INFO,
    predicted_sjf::INFO,
    srpt::INFO,
    skip_join_mlfq::INFO,
    npu_prefill::INFO,
    pd_adaptive::INFO,
    crate::pd_partition::INFO,
    hetero_split::INFO,
    attention_offload::INFO,
    speculative::INFO,
    decode_first::INFO,
    prefill_first::INFO,
    crate::sarathi::INFO,
    crate::slack_chunk::INFO,
    crate::flow_prefill::INFO,
    crate::jitserve::INFO,
    crate::dream::INFO,
    crate::content_aware::INFO,
    crate::prema::INFO,
    crate::dysta::INFO,
    crate::band_sel::INFO,
    crate::band_lsf::INFO,
    crate::heft_reserved::INFO,
    crate::exclusive_lru::INFO,
    crate::rate_limiter::INFO,
    crate::kv_priority::INFO,
    crate::kv_offload::INFO,
    crate::llumnix::INFO,
    crate::throttle::INFO,
    crate::heft_plan::INFO,
    crate::cpop::INFO,
    crate::peft::INFO,
    crate::lookahead::INFO,
    crate::tbs::INFO,
    crate::edf_vd::INFO,
    crate::heterogeneous_priority::INFO,
    crate::utilisation_partition::INFO,
    crate::bandwidth_aware::INFO,
    crate::saga::INFO,
    crate::planaria::INFO,
    crate::terastal::INFO,
    crate::cycle_conserving_edf::INFO,
    crate::state_aware::INFO,
    crate::cost_aware::INFO,
    crate::bandit::INFO,
];

/// All policies, in the order in which they are listed.
pub fn all() -> &'static [PolicyInfo] {
    POLICIES
}

/// Names of the policies that a comparison runs unless told otherwise: the RTGen-style five, the textbook's, and our own. Few enough for
/// one table.
pub const STANDARD: &[&str] = &[
    "static",
    "fcfs",
    "round-robin",
    "edf",
    "eft",
    "fixed-priority",
    "llf",
    "p-edf",
    "sjf",
    "latency-greedy",
    "onbeat",
];

/// Names of the policies of a group (in any case), or of the [`STANDARD`] ones for `standard`; `None` if there is no such group.
pub fn group(name: &str) -> Option<Vec<&'static str>> {
    if name == "standard" {
        return Some(STANDARD.to_vec());
    }
    let of_group = |info: &&PolicyInfo| info.group.eq_ignore_ascii_case(name);
    let names: Vec<_> = all().iter().filter(of_group).map(|info| info.name).collect();
    // The policy `onbeat` is the only one of its group; its name means the policy.
    (!names.is_empty() && find(name).is_err()).then_some(names)
}

/// What others call some of the policies; who asks for one of these is told ours. In alphabetical order.
static OTHER_NAMES: &[(&str, &str)] = &[
    ("constant-bandwidth-server", "cbs"),
    ("deadline-monotonic", "dm"),
    ("earliest-deadline-first", "edf"),
    ("earliest-finish-time", "eft"),
    ("edf-with-virtual-deadlines", "edf-vd"),
    ("fifo", "fcfs"),
    ("highest-priority", "fixed-priority"),
    ("highest-priority-first", "fixed-priority"),
    ("hpf", "fixed-priority"),
    ("least-laxity-first", "llf"),
    ("partitioned-edf", "p-edf"),
    ("per-pipeline-throttle", "throttle"),
    ("pipeline-throttle", "throttle"),
    ("rate-monotonic", "fixed-priority"),
    ("shortest-job-first", "sjf"),
    ("shortest-remaining-processing-time", "srpt"),
    ("total-bandwidth-server", "tbs"),
];

/// The policy that somebody may mean who asks for this name.
fn suggestion(name: &str) -> Option<&'static str> {
    let meant = |wanted: &str| OTHER_NAMES.iter().find(|(other, _)| *other == wanted).map(|&(_, ours)| ours);
    let others = || OTHER_NAMES.iter().map(|&(other, _)| other);
    let ours = || all().iter().map(|info| info.name);
    // As users write them: `Rate Monotonic`, `highest_priority`.
    let plain = name.trim().to_ascii_lowercase().replace([' ', '_'], "-");
    meant(&plain).or_else(|| closest(&plain, ours())).or_else(|| meant(closest(&plain, others())?))
}

/// The policy with this name (without parameters).
///
/// # Errors
/// [`PolicyError::UnknownPolicy`].
pub fn find(name: &str) -> Result<&'static PolicyInfo, PolicyError> {
    let names = || all().iter().map(|info| info.name);
    all().iter().find(|info| info.name == name).ok_or_else(|| PolicyError::UnknownPolicy {
        name: name.to_owned(),
        known: names().collect(),
        suggestion: suggestion(name).map(str::to_owned),
    })
}

/// Makes a policy for a system from text: a name, or a name and parameters such as `edf:preemptive=false` or
/// `llf:hysteresis_ms=2,quantum_ms=1`.
///
/// # Errors
/// See [`PolicyError`]; nothing is made.
pub fn make(text: &str, system: &System) -> Result<Box<dyn Policy>, PolicyError> {
    let (name, parameters) = text.split_once(':').unwrap_or((text, ""));
    let info = find(name.trim())?;
    let policy = (info.build)(&Parameters::parse(info, parameters)?, system)?;
    Ok(if system.has_best_effort() { best_effort::serve_behind(policy, system) } else { policy })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use onbeat_core::spec::Preemption;

    use super::*;
    use crate::test_rig::{Rig, start};

    fn error(text: &str) -> String {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        rig.stream("camera", Some(10.0), &[Some(4.0)]);
        make(text, &rig.system).expect_err("the text is wrong").to_string()
    }

    #[test]
    fn every_policy_can_be_made_by_name_and_with_its_defaults_spelt_out() {
        let mut rig = Rig::new(&[("npu", Preemption::Anytime)]);
        rig.stream("camera", Some(10.0), &[Some(4.0)]);
        let mut names: Vec<_> = all().iter().map(|info| info.name).collect();
        for info in all() {
            make(info.name, &rig.system).unwrap();
            let defaults: Vec<_> = info.parameters.iter().map(|p| format!("{}={}", p.name, p.default)).collect();
            make(&format!("{}:{}", info.name, defaults.join(",")), &rig.system).unwrap();
            assert!(!info.summary.contains('\n') && !info.summary.ends_with('.'), "{}", info.name);
            assert!(
                [
                    "RTGen-style",
                    "real-time",
                    "multi-DNN",
                    "onbeat",
                    "onbeat",
                    "runtime",
                    "generative",
                    "DAG",
                    "XSched",
                    "contention"
                ]
                .contains(&info.group),
                "{}",
                info.name
            );
            assert_eq!(find(info.name).unwrap().name, info.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "reads the repository's own pages")]
    fn every_policy_has_its_page_and_its_scenario_test() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |folder: &str, name: &str| {
            let path = root.join(folder).join(format!("{name}.md"));
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let overview = read("docs/policies", "README");
        for info in all() {
            let page = read("docs/policies", info.name);
            let headings: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
            let expected =
                ["Overview", "When to use", "Guarantees", "Parameters", "Cost per decision", "Limits", "Reference"];
            assert_eq!(headings, expected, "{}", info.name);
            for parameter in info.parameters {
                assert!(page.contains(&format!("| `{}` |", parameter.name)), "{}: {}", info.name, parameter.name);
            }
            assert!(overview.contains(&format!("]({}.md)", info.name)), "{} is not in the overview", info.name);
            let example = read("tests/scenarios", info.name);
            assert!(example.contains(&format!("policy = \"{}", info.name)), "{}", info.name);
        }
    }

    #[test]
    fn no_policy_starts_a_stage_where_memory_has_just_refused_it() {
        let mut rig = Rig::new(&[("cpu", Preemption::Anytime), ("npu", Preemption::Anytime)]);
        let camera = rig.stream("camera", Some(10.0), &[Some(9.0), Some(4.0)]);
        let stage = rig.ready(camera, 0.0);
        for (refused, allowed) in [(0b10, Some(start(stage, 0))), (0b01, Some(start(stage, 1))), (0b11, None)] {
            rig.state.stages[stage].refused = refused;
            for info in all() {
                let actions = rig.decide(info.name);
                // Some policies have one place for a stage, and here it is the NPU.
                let one_place = [
                    "static",
                    "p-edf",
                    "exclusive-lru",
                    "heft-plan",
                    "cpop",
                    "peft",
                    "lookahead",
                    "cycle-conserving-edf",
                ];
                let pinned = one_place.contains(&info.name) && refused == 0b10;
                assert_eq!(actions, Vec::from_iter(allowed.filter(|_| !pinned)), "{} {refused:b}", info.name);
            }
        }
    }

    #[test]
    fn other_names_are_nobodys_own_and_mean_policies() {
        for (other, ours) in OTHER_NAMES {
            assert!(find(other).is_err() && group(other).is_none() && find(ours).is_ok(), "{other}");
        }
        assert!(OTHER_NAMES.is_sorted());
    }

    #[test]
    fn groups_name_their_members() {
        assert!(STANDARD.iter().all(|name| find(name).is_ok()));
        assert_eq!(group("standard").unwrap(), STANDARD);
        let rtgen = group("rtgen-style").unwrap();
        assert_eq!(rtgen, ["static", "fcfs", "round-robin", "edf", "eft"]);
        assert_eq!(group("onbeat"), None, "the policy, not its group");
        assert_eq!(group("no-such-group"), None);
    }

    #[test]
    fn mistakes_are_explained() {
        let names: Vec<_> = all().iter().map(|info| info.name).collect();
        assert_eq!(
            error("efd"),
            format!("there is no policy `efd` (did you mean `edf`?); policies are {}", names.join(", "))
        );
        for (name, meant) in [
            ("per-pipeline-throttle", "throttle"),
            ("highest-priority", "fixed-priority"),
            ("Rate_Monotonic", "fixed-priority"),
            ("least laxity first", "llf"),
            ("hihgest-priority", "fixed-priority"),
        ] {
            let told = error(name);
            assert!(told.contains(&format!("`{name}` (did you mean `{meant}`?)")), "{told}");
        }
        assert!(error("no-such-thing-at-all").starts_with("there is no policy `no-such-thing-at-all`; policies"));
        assert_eq!(
            error("edf:preemtive=false"),
            "policy `edf` has no parameter `preemtive` (did you mean `preemptive`?); its parameters are preemptive"
        );
        assert_eq!(error("fcfs:x=1"), "policy `fcfs` has no parameter `x`; it has none");
        assert_eq!(
            error("edf:preemptive=yes"),
            "policy `edf`: parameter `preemptive` cannot be `yes`; it takes true or false"
        );
        assert_eq!(
            error("llf:quantum_ms=-1"),
            "policy `llf`: parameter `quantum_ms` cannot be `-1`; it takes a number of milliseconds from 0 to 3600000"
        );
        assert_eq!(
            error("edf:preemptive"),
            "policy `edf`: `preemptive` is not of the form name=value (as in `edf:preemptive=false`)"
        );
        assert_eq!(
            error("edf:preemptive=true,preemptive=false"),
            "policy `edf`: parameter `preemptive` is given twice"
        );
    }
}
