//! Static plans under noise: `docs/plans-and-noise.md` holds what the example `noise` prints, and says what is to be seen in it.

#[path = "../../examples/noise/sweep.rs"]
mod sweep;

use sweep::{Load, POLICIES, SPREADS, render, sweep};

fn table(load: Load) -> Vec<Vec<f64>> {
    let table = sweep(POLICIES, SPREADS, load);
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/plans-and-noise.md");
    let page = std::fs::read_to_string(page).unwrap();
    let printed = render(POLICIES, SPREADS, &table);
    assert!(page.contains(&printed), "docs/plans-and-noise.md does not hold this table ({load:?}):\n{printed}");
    table
}

fn row<'a>(table: &'a [Vec<f64>], policy: &str) -> &'a [f64] {
    &table[POLICIES.iter().position(|&name| name == policy).unwrap()]
}

/// With one job at a time, a plan keeps most of its advantage: nothing but its own times can upset it.
#[test]
fn a_plan_alone_loses_its_advantage_slowly() {
    let table = table(Load::Alone);
    let (plan, decided) = (row(&table, "heft-plan"), row(&table, "heft"));
    let advantage: Vec<f64> = plan.iter().zip(decided).map(|(plan, decided)| decided / plan - 1.0).collect();
    assert!(advantage[0] > 0.03, "{advantage:?}");
    assert!(advantage.windows(2).all(|pair| pair[1] < pair[0]), "{advantage:?}");
}

/// DeepSoCS's point (Sung et al. 2020): with jobs in each other's way a little noise is enough for the same ranks, decided as things happen,
/// to do better than the plan.
#[test]
fn a_plan_among_others_is_brittle() {
    let table = table(Load::Overlapping);
    let (plan, moved, decided) = (row(&table, "heft-plan"), row(&table, "heft-plan:noise=move"), row(&table, "heft"));
    assert!(plan[0] < moved[0] && plan[0] < decided[0], "without noise the plan is best");
    for column in 2..SPREADS.len() {
        assert!(decided[column] < plan[column], "spread {}", SPREADS[column]);
        assert!(moved[column] < plan[column], "spread {}", SPREADS[column]);
    }
    assert!(plan[4] / plan[0] > decided[4] / decided[0] + 0.2);
}
