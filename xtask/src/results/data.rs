//! What was measured.

/// The project's own policy, whose losses are looked into.
pub(super) const OWN: &str = "onbeat";

/// What decision costs are relative to.
pub(super) const YARDSTICK: &str = "fcfs";

/// What a platform is, for averages that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// A chip that can be bought, with an app's scenario.
    Chips,
    /// One of XRBench's accelerators, with one of its scenarios.
    XrBench,
    /// A case whose answer is known from theory; in no average.
    Textbook,
}

/// A scenario on a platform under all policies.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) scenario: String,
    pub(super) platform: String,
    pub(super) group: Group,
    pub(super) duration_s: f64,
    /// Lower bound of the mean violation rate.
    pub(super) bound: f64,
    /// Best first.
    pub(super) entries: Vec<Entry>,
}

/// A policy in a cell.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) policy: String,
    pub(super) standing: Standing,
    /// Mean violation rate, over seeds.
    pub(super) mean: f64,
    /// Half the width of its 95% interval.
    pub(super) half_width: f64,
    /// By seed.
    pub(super) by_seed: Vec<f64>,
    /// Violations / judged jobs of the whole run, over seeds.
    pub(super) of_all_jobs: f64,
    /// Share of judged requests that met all goals, by seed; none without sessions that have goals.
    pub(super) slo_by_seed: Option<Vec<f64>>,
    /// Violation rate of each source that has one.
    pub(super) sources: Vec<(String, f64)>,
}

/// Against the best policy of the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The best, or the same as it on every seed.
    Best,
    /// The 95% interval of the paired difference includes zero.
    WithinNoise,
    /// Worse.
    Worse,
}

/// A cell in which our own policy is worse than the best.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// Index of the cell.
    pub(super) cell: usize,
    /// Ours less the best policy's mean violation rate.
    pub(super) difference: f64,
    /// The same with processors that do not slow each other down on the memory bus.
    pub(super) without_contention: f64,
}

/// What a decision of a policy costs in one workload.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    pub(super) policy: String,
    pub(super) workload: String,
    pub(super) decisions: u64,
    pub(super) mean_ns: f64,
    pub(super) p99_ns: f64,
    pub(super) allocations: f64,
}

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct Results {
    pub(super) cells: Vec<Cell>,
    pub(super) losses: Vec<Loss>,
    pub(super) costs: Vec<Cost>,
    /// Policies that stopped a run with an error, and where.
    pub(super) left_out: Vec<String>,
    pub(super) seeds: u32,
    /// How long all runs took.
    pub(super) seconds: f64,
}

impl Cell {
    /// A policy's entry. Every policy runs in every cell.
    pub(super) fn entry(&self, policy: &str) -> &Entry {
        self.entries.iter().find(|entry| entry.policy == policy).expect("every policy runs in every cell")
    }

    /// The best policy's.
    pub(super) fn best(&self) -> &Entry {
        &self.entries[0]
    }

    /// Name for people.
    pub(super) fn name(&self) -> String {
        format!("{} on {}", self.scenario, self.platform)
    }
}

impl Results {
    /// Cells of a group.
    pub(super) fn group(&self, group: Group) -> impl Iterator<Item = &Cell> + Clone {
        self.cells.iter().filter(move |cell| cell.group == group)
    }

    /// Cells that averages and counts are about.
    pub(super) fn counted(&self) -> impl Iterator<Item = &Cell> + Clone {
        self.cells.iter().filter(|cell| cell.group != Group::Textbook)
    }

    /// Names of all policies that got through, in the order of the registry.
    pub(super) fn policies(&self) -> Vec<&'static str> {
        let there = |name: &&str| self.cells.iter().all(|cell| cell.entries.iter().any(|entry| entry.policy == *name));
        onbeat_policy::all().iter().map(|info| info.name).filter(there).collect()
    }

    /// A policy's cost in a workload; `None` if none of its states came up.
    pub(super) fn cost(&self, policy: &str, workload: &str) -> Option<&Cost> {
        self.costs.iter().find(|cost| cost.policy == policy && cost.workload == workload)
    }
}
