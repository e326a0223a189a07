//! Estimates beside what others published.

use onbeat_core::spec::{CostSpec, ModelSpec, PlatformSpec, ProfileSpec, ProvenanceKind};

use super::{Estimate, NoEstimate, Rates, Subject};

/// A figure of a profile that somebody measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Platform.
    pub platform: String,
    /// Processor.
    pub processor: String,
    /// `model` or `model/variant`.
    pub model: String,
    /// `inference`, `prefill` or `decode`.
    pub phase: &'static str,
    /// Tokens of the prompt or of the context; 0 for an inference.
    pub tokens: u32,
    /// Latency [ms].
    pub ms: f64,
}

/// A figure and what the roofline says.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The figure.
    pub measured: Measured,
    /// The estimate, or why there is none.
    pub estimate: Result<Estimate, NoEstimate>,
}

impl Comparison {
    /// How many times longer than estimated it took; below 1 the bound did not hold.
    pub fn ratio(&self) -> Option<f64> {
        let estimate = self.estimate.as_ref().ok()?;
        Some(self.measured.ms / estimate.ms())
    }
}

/// How far a group of figures is from the estimates. Quantiles are by nearest rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Platform and processor, or empty for all.
    pub of: String,
    /// `inference`, `prefill` or `decode`.
    pub phase: &'static str,
    /// How many figures.
    pub figures: usize,
    /// Smallest ratio of published to estimated latency.
    pub least: f64,
    /// Median ratio.
    pub median: f64,
    /// 90th percentile of the ratio.
    pub p90: f64,
    /// Largest ratio.
    pub most: f64,
}

/// The figures of a profile that somebody measured: those whose source is of kind `published` or `measured`.
///
/// A prefill table that starts flat is that of a graph of fixed size: shorter prompts are padded to it and longer ones are multiples
/// of it. Of such a table only the second point is a figure.
pub fn published(profile: &ProfileSpec) -> Vec<(&CostSpec, Measured)> {
    let mut figures = Vec::new();
    for cost in &profile.cost {
        let measured = |field: &str| {
            let key = cost.provenance.get(field).or(cost.source.as_ref());
            let kind = key.and_then(|key| profile.source.get(key)).map(|source| source.kind);
            matches!(kind, Some(ProvenanceKind::Published | ProvenanceKind::Measured))
        };
        let variant = cost.variant.as_ref().map_or_else(String::new, |variant| format!("/{variant}"));
        let figure = |phase, tokens: f64, ms| Measured {
            platform: profile.platform.clone().unwrap_or_default(),
            processor: cost.processor.clone(),
            model: format!("{}{variant}", cost.model),
            phase,
            tokens: tokens as u32,
            ms,
        };
        if let Some(ms) = cost.latency_ms.filter(|_| measured("latency_ms")) {
            figures.push((cost, figure("inference", 0.0, ms)));
        }
        let prefill = cost.prefill_ms.as_deref().filter(|_| measured("prefill_ms")).unwrap_or_default();
        let prefill = match prefill {
            [first, second, ..] if first.1 == second.1 => &prefill[1..2],
            all => all,
        };
        figures.extend(prefill.iter().map(|&(tokens, ms)| (cost, figure("prefill", tokens, ms))));
        let decode = cost.decode_ms.as_deref().filter(|_| measured("decode_ms")).unwrap_or_default();
        figures.extend(decode.iter().map(|&(tokens, ms)| (cost, figure("decode", tokens, ms))));
    }
    figures
}

/// Every measured figure of a profile beside its estimate. `model` finds models by name.
///
/// Weights are those that the entry says it moves (`bytes_mb`), else the variant's, else the model's. Prompts are computed in the pieces that
/// the entry states.
pub fn compare<'a>(
    profile: &ProfileSpec,
    platform: &PlatformSpec,
    model: impl Fn(&str) -> Option<&'a ModelSpec>,
) -> Vec<Comparison> {
    let figures = published(profile).into_iter();
    let compared = figures.map(|(cost, measured)| {
        let estimate = model(&cost.model)
            .ok_or(NoEstimate::Architecture)
            .and_then(|spec| estimate(cost, &measured, spec, platform));
        Comparison { measured, estimate }
    });
    compared.collect()
}

fn estimate(
    cost: &CostSpec,
    measured: &Measured,
    spec: &ModelSpec,
    platform: &PlatformSpec,
) -> Result<Estimate, NoEstimate> {
    let weights_mb = match &cost.variant {
        Some(variant) => spec.variant.get(variant).and_then(|variant| variant.weights_mb),
        None => spec.weights_mb,
    };
    let subject = Subject::new(spec, cost.bytes_mb.or(weights_mb))?;
    let processor = platform.processor.iter().find(|processor| processor.name == cost.processor);
    let processor = processor.ok_or_else(|| NoEstimate::Peak(cost.processor.clone()))?;
    let rates = Rates::of(platform, processor, subject.compute_bits())?;
    let estimate = match measured.phase {
        "prefill" => subject.prefill(rates, measured.tokens, cost.prefill_chunk, 1),
        "decode" => subject.decode(rates, measured.tokens, 1),
        _ => subject.inference(rates),
    };
    estimate.ok_or(NoEstimate::Architecture)
}

/// The distribution of the ratios, for every platform, processor and phase in order of first appearance, then for all of a phase.
pub fn groups(comparisons: &[Comparison]) -> Vec<Group> {
    let mut keys: Vec<(String, &'static str)> = Vec::new();
    for phase in ["inference", "prefill", "decode"] {
        for comparison in comparisons.iter().filter(|c| c.estimate.is_ok() && c.measured.phase == phase) {
            let key = (place(comparison), phase);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys.push((String::new(), phase));
    }
    keys.into_iter().filter_map(|(of, phase)| group(of, phase, comparisons)).collect()
}

fn place(comparison: &Comparison) -> String {
    format!("{} {}", comparison.measured.platform, comparison.measured.processor)
}

fn group(of: String, phase: &'static str, comparisons: &[Comparison]) -> Option<Group> {
    let belongs = |c: &&Comparison| c.measured.phase == phase && (of.is_empty() || place(c) == of);
    let mut ratios: Vec<f64> = comparisons.iter().filter(belongs).filter_map(Comparison::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios.get(((share * ratios.len() as f64).ceil() as usize).max(1) - 1).copied();
    let (least, most) = (*ratios.first()?, *ratios.last()?);
    Some(Group { phase, figures: ratios.len(), least, median: at(0.5)?, p90: at(0.9)?, most, of })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> ProfileSpec {
        toml::from_str(
            r#"
            platform = "p"
            cost = [
                { model = "net", processor = "npu", latency_ms = 3, source = "them" },
                { model = "net", processor = "npu", variant = "w8", latency_ms = 4, source = "guess" },
                { model = "lm", processor = "npu", prefill_ms = [[1, 7], [128, 7], [256, 14]], decode_ms = [[9, 2], [10, 3]], source = "them", provenance = { decode_ms = "guess" } },
                { model = "lm", processor = "gpu", prefill_ms = [[64, 5], [128, 7]], decode_ms = [[9, 2]], source = "them" },
            ]
            source.them = { kind = "published", from = "them" }
            source.guess = { kind = "analytical", formula = "none" }
            "#,
        )
        .expect("the test's text is a profile")
    }

    #[test]
    fn only_what_somebody_measured_is_compared() {
        let profile = profile();
        let figures = published(&profile);
        let shown: Vec<(&str, &str, u32, f64)> =
            figures.iter().map(|(_, m)| (m.processor.as_str(), m.phase, m.tokens, m.ms)).collect();
        let expected = [
            ("npu", "inference", 0, 3.0),
            ("npu", "prefill", 128, 7.0),
            ("gpu", "prefill", 64, 5.0),
            ("gpu", "prefill", 128, 7.0),
            ("gpu", "decode", 9, 2.0),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn ratios_are_of_published_to_estimated() {
        let platform: PlatformSpec = toml::from_str(
            "name = 'p'\nmemory = { bandwidth_gbps = 10 }\nprocessor = [{ name = 'npu', kind = 'npu', peak_tops = 1 }]\n",
        )
        .expect("the test's text is a platform");
        let net: ModelSpec = toml::from_str("weights_mb = 20\nnetwork = { gmacs = 0.5 }\n").expect("a model");
        let compared = compare(&profile(), &platform, |name| (name == "net").then_some(&net));
        // 20 MB at 10 GB/s are 2 ms, 10^9 operations at 10^12/s are 1 ms: 3 ms were published.
        assert_eq!(compared[0].ratio(), Some(1.5));
        assert_eq!(compared[1].estimate, Err(NoEstimate::Architecture));
        let groups = groups(&compared);
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].of.as_str(), groups[0].phase, groups[0].figures), ("p npu", "inference", 1));
        assert_eq!((groups[1].of.as_str(), groups[1].median, groups[1].p90), ("", 1.5, 1.5));
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let of = |ms: f64| Comparison {
            measured: Measured {
                platform: "p".to_owned(),
                processor: "npu".to_owned(),
                model: "m".to_owned(),
                phase: "decode",
                tokens: 1,
                ms,
            },
            estimate: Ok(Estimate { memory_s: 1e-3, ..Estimate::default() }),
        };
        let compared: Vec<Comparison> = (1..=10).rev().map(|ms| of(f64::from(ms))).collect();
        let group = &groups(&compared)[0];
        let shown = [group.least, group.median, group.p90, group.most];
        assert_eq!(shown.map(f64::round), [1.0, 5.0, 9.0, 10.0]);
    }
}
