//! What a reader of results must know: assumptions in plain sentences, and warnings.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::VariationKind;
use crate::system::{Platform, Variation};

/// Assumptions and warnings, collected while a scenario is resolved; each is said once.
#[derive(Debug, Default)]
pub(super) struct Notes {
    warnings: Vec<String>,
    assumptions: Vec<String>,
    unknown_weights: BTreeSet<String>,
    instant_load: BTreeSet<String>,
    /// By processor: the models of unknown energy, and whether any model's energy is known.
    energy: BTreeMap<String, (BTreeSet<String>, bool)>,
    unknown_cache: BTreeSet<String>,
    whole_prefill: BTreeSet<String>,
    mixed_steps: BTreeSet<String>,
    parts_without_bytes: BTreeSet<String>,
}

/// What holds for the run as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Whether processors slow each other down.
    pub contention: bool,
    /// Factor on all bytes moved.
    pub bytes_scale: f64,
    /// Variation of execution times.
    pub variation: Variation,
}

impl Notes {
    pub(super) fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    pub(super) fn assume(&mut self, text: String) {
        if !self.assumptions.contains(&text) {
            self.assumptions.push(text);
        }
    }

    pub(super) fn unknown_weights(&mut self, model: &str) {
        self.unknown_weights.insert(model.to_owned());
    }

    pub(super) fn instant_load(&mut self, model: &str) {
        self.instant_load.insert(model.to_owned());
    }

    /// Whether a model's energy on a processor is known.
    pub(super) fn energy(&mut self, model: &str, processor: &str, known: bool) {
        let (unknown, any_known) = self.energy.entry(processor.to_owned()).or_default();
        if known {
            *any_known = true;
        } else {
            unknown.insert(model.to_owned());
        }
    }

    pub(super) fn unknown_cache(&mut self, model: &str) {
        self.unknown_cache.insert(model.to_owned());
    }

    pub(super) fn whole_prefill(&mut self, what: &str) {
        self.whole_prefill.insert(what.to_owned());
    }

    pub(super) fn mixed_steps(&mut self, what: &str) {
        self.mixed_steps.insert(what.to_owned());
    }

    pub(super) fn parts_without_bytes(&mut self, what: &str) {
        self.parts_without_bytes.insert(what.to_owned());
    }

    /// All assumptions and all warnings.
    pub(super) fn finish(mut self, platform: &Platform, run: Run) -> (Vec<String>, Vec<String>) {
        self.about_time(run);
        self.about_bandwidth(platform, run);
        let groups = [
            (
                "No size of the weights is known, so they take no memory, no loading and no bandwidth",
                &self.unknown_weights,
            ),
            ("No time to load the weights is known, so loading takes none", &self.instant_load),
            ("No size of the key-value cache is known, so it takes no memory and no bandwidth", &self.unknown_cache),
            ("The prompt is one segment, which cannot be interrupted at a segment's end", &self.whole_prefill),
            ("What a step takes that prompts and answers share is computed, not measured", &self.mixed_steps),
            ("What precedes and follows the loop of steps is taken to move no data", &self.parts_without_bytes),
        ];
        let sentences: Vec<String> = groups
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(text, names)| format!("{text}: {}.", names.iter().cloned().collect::<Vec<_>>().join(", ")))
            .collect();
        self.assumptions.extend(sentences);
        self.about_energy();
        self.about_power(platform);
        let idle: Vec<&str> = platform.processors.iter().filter(|p| p.idle_w == 0.0).map(|p| p.name.as_str()).collect();
        if !idle.is_empty() {
            self.assume(format!("No idle power is known, so none is counted: {}.", idle.join(", ")));
        }
        (self.assumptions, self.warnings)
    }

    fn about_energy(&mut self) {
        let mut unknown = Vec::new();
        for (processor, (models, any_known)) in &self.energy {
            if *any_known {
                unknown.extend(models.iter().map(|model| format!("{model} on {processor}")));
            } else {
                unknown.push(format!("everything on {processor}"));
            }
        }
        if !unknown.is_empty() {
            self.assume(format!("No energy of work is known, so none is counted: {}.", unknown.join(", ")));
        }
    }

    fn about_power(&mut self, platform: &Platform) {
        let models = || platform.processors.iter().filter_map(|p| Some((p, p.power.as_ref()?)));
        let several: Vec<_> = models().filter(|(_, model)| model.points.len() > 1).collect();
        if !several.is_empty() {
            let who: Vec<String> =
                several.iter().map(|(p, model)| format!("{} by {}", p.name, model.governor.name())).collect();
            self.assume(format!(
                "Operating points change what computing takes, not what the memory takes, and are chosen: {}.",
                who.join(", ")
            ));
            let unknown: Vec<String> = several
                .iter()
                .flat_map(|(p, model)| model.points.iter().map(move |point| (p, point)))
                .filter(|(_, point)| point.active_w.is_none() && point.energy_factor.is_none())
                .map(|(p, point)| format!("{} at {}", p.name, point.name))
                .collect();
            if !unknown.is_empty() {
                self.assume(format!("No energy of work is known, so none is counted: {}.", unknown.join(", ")));
            }
        }
        let hot: Vec<&str> =
            models().filter(|(_, model)| model.thermal.is_some()).map(|(p, _)| p.name.as_str()).collect();
        if !hot.is_empty() {
            self.assume(format!(
                "Each processor heats up by itself, as one heat capacity behind one resistance; processors do not heat each other: {}.",
                hot.join(", ")
            ));
        }
        if let Some(cap) = platform.power_cap {
            self.assume(format!(
                "All processors together draw at most {cap} W, as far as slower operating points reach."
            ));
        }
    }

    fn about_time(&mut self, run: Run) {
        let text = match run.variation.kind {
            VariationKind::None => "Execution times do not vary, except where a distribution was measured.".to_owned(),
            VariationKind::Lognormal => {
                format!(
                    "Execution times vary log-normally with a standard deviation of {}, chosen by the scenario.",
                    run.variation.spread
                )
            }
            VariationKind::Uniform => {
                format!("Execution times vary uniformly by ±{}, chosen by the scenario.", run.variation.spread)
            }
            VariationKind::Exponential => "Execution times are exponential, chosen by the scenario.".to_owned(),
        };
        self.assume(text);
        if run.variation.smallest() == 0.0 {
            self.assume(
                "With this variation a job can take arbitrarily little time: there is no lower bound on latencies."
                    .to_owned(),
            );
        }
    }

    fn about_bandwidth(&mut self, platform: &Platform, run: Run) {
        let text = if !run.contention {
            "Contention on the memory bus is switched off: processors do not slow each other down."
        } else if platform.bandwidth.is_none() {
            "The bandwidth of the memory bus is unknown: processors do not slow each other down."
        } else {
            "Contention: the memory bus is shared max-min fairly, and the memory-bound parts of all running segments are assumed to coincide."
        };
        self.assume(text.to_owned());
        if run.bytes_scale != 1.0 {
            self.assume(format!("All bytes moved are multiplied by {}.", run.bytes_scale));
        }
    }
}
