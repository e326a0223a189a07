//! What follows from the measurements: spreads, standings, duels.

use onbeat_analysis::compare::{Verdict, paired};
use onbeat_core::metric::Metric;

use crate::results::data::{Cell, Entry, OWN, Results, Standing};

/// RTGen's average, for comparison (Karami et al., arXiv 2507.14715, abstract).
pub(super) const RTGEN_SPREAD: f64 = 0.417;

/// How many policies RTGen compares.
const FIVE: usize = 5;

/// How much the choice of policy moves a violation rate, over cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    /// Number of cells.
    pub(super) cells: usize,
    /// Cells in which at least one policy violates something: those that have a relative spread.
    pub(super) with_violations: usize,
    /// Mean over cells of the lowest rate.
    pub(super) lowest: f64,
    /// Mean over cells of the highest rate.
    pub(super) highest: f64,
    /// Mean over cells of (highest − lowest).
    pub(super) absolute: f64,
    /// Mean over cells with violations of (highest − lowest) / highest.
    pub(super) relative: f64,
    /// Cells whose relative spread is at least 40%.
    pub(super) at_least_40: usize,
    /// `absolute`, as expected for five policies drawn at random.
    pub(super) absolute_of_five: f64,
    /// `relative`, as expected for five policies drawn at random.
    pub(super) relative_of_five: f64,
}

/// The spread of a rate over cells.
pub(super) fn spread<'a>(cells: impl Iterator<Item = &'a Cell>, rate: fn(&Entry) -> f64) -> Spread {
    let mut sum = Spread {
        cells: 0,
        with_violations: 0,
        lowest: 0.0,
        highest: 0.0,
        absolute: 0.0,
        relative: 0.0,
        at_least_40: 0,
        absolute_of_five: 0.0,
        relative_of_five: 0.0,
    };
    for cell in cells {
        let mut rates: Vec<f64> = cell.entries.iter().map(rate).collect();
        rates.sort_by(f64::total_cmp);
        let (low, high) = (rates[0], rates[rates.len() - 1]);
        sum.cells += 1;
        sum.lowest += low;
        sum.highest += high;
        sum.absolute += high - low;
        let (absolute_of_five, relative_of_five) = of_five(&rates);
        sum.absolute_of_five += absolute_of_five;
        if high > 0.0 {
            let relative = (high - low) / high;
            sum.with_violations += 1;
            sum.relative += relative;
            sum.at_least_40 += usize::from(relative >= 0.4);
            sum.relative_of_five += relative_of_five;
        }
    }
    let (all, some) = (sum.cells.max(1) as f64, sum.with_violations.max(1) as f64);
    for mean in [&mut sum.lowest, &mut sum.highest, &mut sum.absolute, &mut sum.absolute_of_five] {
        *mean /= all;
    }
    sum.relative /= some;
    sum.relative_of_five /= some;
    sum
}

/// Means over all choices of five of the rates, in ascending order: of (highest − lowest), and of that / highest. A choice without
/// violations has the relative spread 0.
fn of_five(rates: &[f64]) -> (f64, f64) {
    let (mut absolute, mut relative, mut choices) = (0.0, 0.0, 0.0);
    for (i, low) in rates.iter().enumerate() {
        for (j, high) in rates.iter().enumerate().skip(i + FIVE - 1) {
            // Three more lie between the lowest and the highest.
            let between = (j - i - 1) as f64;
            let weight = between * (between - 1.0) * (between - 2.0) / 6.0;
            choices += weight;
            absolute += weight * (high - low);
            if *high > 0.0 {
                relative += weight * (high - low) / high;
            }
        }
    }
    if choices > 0.0 { (absolute / choices, relative / choices) } else { (0.0, 0.0) }
}

/// In how many cells a policy is best, within the noise of the best, and worse; and how far above the best it is on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub(super) best: usize,
    pub(super) within_noise: usize,
    pub(super) worse: usize,
    /// Mean over cells of the mean violation rate.
    pub(super) mean: f64,
    /// Mean over cells of the distance from the best.
    pub(super) behind: f64,
}

impl Record {
    /// Cells in which no policy is better beyond noise.
    pub(super) fn unbeaten(&self) -> usize {
        self.best + self.within_noise
    }
}

/// A policy's record over cells.
pub(super) fn record<'a>(cells: impl Iterator<Item = &'a Cell>, policy: &str) -> Record {
    let mut record = Record::default();
    let mut count = 0;
    for cell in cells {
        let entry = cell.entry(policy);
        match entry.standing {
            Standing::Best => record.best += 1,
            Standing::WithinNoise => record.within_noise += 1,
            Standing::Worse => record.worse += 1,
        }
        record.mean += entry.mean;
        record.behind += entry.mean - cell.best().mean;
        count += 1;
    }
    record.mean /= f64::from(count.max(1));
    record.behind /= f64::from(count.max(1));
    record
}

/// Our own policy against another one: cells by who has fewer violations beyond noise.
#[derive(Clone, Debug)]
pub(super) struct Duel {
    pub(super) rival: &'static str,
    pub(super) rival_better: usize,
    pub(super) own_better: usize,
    pub(super) within_noise: usize,
}

/// Our own policy against every other one, the most dangerous first.
pub(super) fn duels(results: &Results) -> Vec<Duel> {
    let mut duels: Vec<Duel> = Vec::new();
    for rival in results.policies().into_iter().filter(|policy| *policy != OWN) {
        let mut duel = Duel { rival, rival_better: 0, own_better: 0, within_noise: 0 };
        for cell in results.counted() {
            match against(cell, rival) {
                Verdict::Better => duel.rival_better += 1,
                Verdict::Worse => duel.own_better += 1,
                _ => duel.within_noise += 1,
            }
        }
        duels.push(duel);
    }
    duels.sort_by_key(|duel| (std::cmp::Reverse(duel.rival_better), duel.own_better));
    duels
}

/// Whether a policy has fewer violations than ours in a cell.
fn against(cell: &Cell, rival: &str) -> Verdict {
    let (rival, own) = (&cell.entry(rival).by_seed, &cell.entry(OWN).by_seed);
    paired(Metric::MeanViolationRate, rival, own).map_or(Verdict::WithinNoise, |difference| difference.verdict)
}

/// Cells that have language model goals, and those of them in which a policy with as many violations as ours (within noise) attains
/// its language model goals more often (beyond noise).
pub(super) fn generative(results: &Results) -> (usize, Vec<(&Cell, &Entry)>) {
    let mut with_goals = 0;
    let mut behind = Vec::new();
    for cell in results.counted() {
        let Some(own) = &cell.entry(OWN).slo_by_seed else { continue };
        with_goals += 1;
        let better = |entry: &&Entry| {
            let attained = entry.slo_by_seed.as_ref().and_then(|rival| paired(Metric::SloAttainment, rival, own));
            against(cell, &entry.policy) == Verdict::WithinNoise
                && attained.is_some_and(|difference| difference.verdict == Verdict::Better)
        };
        let mean = |entry: &&Entry| entry.slo_by_seed.as_ref().map_or(0.0, |values| values.iter().sum::<f64>());
        if let Some(entry) = cell.entries.iter().filter(better).max_by(|a, b| mean(a).total_cmp(&mean(b))) {
            behind.push((cell, entry));
        }
    }
    (with_goals, behind)
}

/// Cells in which a policy alone is best: no other is within noise of it.
pub(super) fn wins_alone<'a>(results: &'a Results, policy: &'a str) -> impl Iterator<Item = &'a Cell> {
    results.counted().filter(move |cell| {
        let unbeaten = cell.entries.iter().filter(|entry| entry.standing != Standing::Worse).count();
        cell.best().policy == policy && unbeaten == 1
    })
}

/// Policies that had the same mean violation rate on every seed of every cell, group by group: what sets them apart, no cell asks for.
pub(super) fn alike(policies: &[&'static str], cells: &[Cell]) -> Vec<Vec<&'static str>> {
    let same = |a: &str, b: &str| cells.iter().all(|cell| cell.entry(a).by_seed == cell.entry(b).by_seed);
    let mut groups: Vec<Vec<&'static str>> = Vec::new();
    for &policy in policies {
        match groups.iter_mut().find(|group| same(group[0], policy)) {
            Some(group) => group.push(policy),
            None => groups.push(vec![policy]),
        }
    }
    groups.retain(|group| group.len() > 1);
    groups
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::results::data::Group;

    /// A cell with one seed's rates doubled to two seeds, best first.
    pub(in crate::results) fn cell(rates: &[(&str, f64)]) -> Cell {
        let best = rates[0].1;
        let entry = |&(policy, mean): &(&str, f64)| Entry {
            policy: policy.to_owned(),
            standing: if mean == best { Standing::Best } else { Standing::Worse },
            mean,
            half_width: 0.0,
            by_seed: vec![mean, mean],
            of_all_jobs: mean,
            slo_by_seed: None,
            sources: Vec::new(),
        };
        Cell {
            scenario: "s".to_owned(),
            platform: "p".to_owned(),
            group: Group::Chips,
            duration_s: 1.0,
            bound: 0.0,
            entries: rates.iter().map(entry).collect(),
        }
    }

    #[test]
    fn the_spread_by_hand() {
        // (0.3 − 0.1) / 0.3 = 2/3, (0.5 − 0.4) / 0.5 = 1/5; the third cell has no violation.
        let cells = [cell(&[("a", 0.1), ("b", 0.3)]), cell(&[("b", 0.4), ("a", 0.5)]), cell(&[("a", 0.0), ("b", 0.0)])];
        let spread = spread(cells.iter(), |entry| entry.mean);
        assert_eq!((spread.cells, spread.with_violations, spread.at_least_40), (3, 2, 1));
        assert!((spread.absolute - 0.1).abs() < 1e-12, "{spread:?}");
        assert!((spread.relative - f64::midpoint(2.0 / 3.0, 0.2)).abs() < 1e-12, "{spread:?}");
        assert!((spread.lowest - 0.5 / 3.0).abs() < 1e-12 && (spread.highest - 0.8 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn five_of_six_by_hand() {
        // Leaving out 0 gives 5 − 1, leaving out 5 gives 4 − 0, each of the other four gives 5 − 0: (4 + 4 + 4 × 5) / 6.
        let (absolute, relative) = of_five(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((absolute - 28.0 / 6.0).abs() < 1e-12, "{absolute}");
        assert!((relative - (0.8 + 1.0 + 4.0) / 6.0).abs() < 1e-12, "{relative}");
        let (absolute, relative) = of_five(&[0.2, 0.2, 0.2, 0.2, 0.6]);
        assert!((absolute - 0.4).abs() < 1e-12 && (relative - 2.0 / 3.0).abs() < 1e-12, "{absolute} {relative}");
        assert_eq!(of_five(&[0.1, 0.2]), (0.0, 0.0));
    }

    #[test]
    fn records_count_cells_and_distances() {
        let cells = [cell(&[("a", 0.1), ("b", 0.3)]), cell(&[("b", 0.4), ("a", 0.5)])];
        let a = record(cells.iter(), "a");
        assert_eq!((a.best, a.within_noise, a.worse), (1, 0, 1));
        assert!((a.mean - 0.3).abs() < 1e-12 && (a.behind - 0.05).abs() < 1e-12, "{a:?}");
    }

    #[test]
    fn policies_are_alike_that_no_cell_sets_apart() {
        let cells = [
            cell(&[("a", 0.1), ("b", 0.1), ("c", 0.1), ("d", 0.2)]),
            cell(&[("c", 0.2), ("a", 0.3), ("b", 0.3), ("d", 0.3)]),
        ];
        assert_eq!(alike(&["a", "b", "c", "d"], &cells), [["a", "b"]]);
    }
}
