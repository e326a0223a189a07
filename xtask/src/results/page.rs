//! The page and the table. Every figure on them is computed here from the measurements; none is typed.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::output_of;
use crate::results::data::{Cell, Entry, Group, OWN, Results, Standing, YARDSTICK};
use crate::results::findings::{
    Duel, RTGEN_SPREAD, Record, Spread, alike, duels, generative, record, spread, wins_alone,
};

/// The platform with the most scenarios has a table of its own.
const MAIN_PLATFORM: &str = "snapdragon-x-elite";
/// Workloads of `crates/sim/examples/decisions.rs`.
const CONFERENCE: &str = "video-conference";
const CROWD: &str = "64-live-jobs";
/// Goals for a decision's 99th percentile with 64 live jobs [µs]: of our own policy, and of every policy.
const OWN_GOAL_US: f64 = 5.0;
const GOAL_US: f64 = 20.0;
/// The most losses that are listed one by one.
const LOSSES_MAX: usize = 24;
/// The share of cells in which one rival may be better than our own policy: the goal of issue C.
const RIVAL_GOAL: f64 = 0.1;

macro_rules! put {
    ($page:expr, $($text:tt)*) => { writeln!($page, $($text)*).expect("writing to a string succeeds") };
}

/// The page.
pub(super) fn render(results: &Results) -> String {
    let mut page = String::new();
    put!(
        page,
        "<!-- Written by `cargo xtask results`; changes here are lost. -->\n\n# Results: all policies on all shipped scenarios\n"
    );
    found(&mut page, results);
    matrix(&mut page, results);
    spreads(&mut page, results);
    standings(&mut page, results);
    twins(&mut page, results);
    own(&mut page, results);
    costs(&mut page, results);
    method(&mut page, results);
    page
}

/// Every cell, for other programs. Nothing in it depends on the machine.
pub(super) fn csv(results: &Results) -> String {
    let mut table =
        "scenario,platform,policy,verdict,mean_violation_rate,half_width,violation_rate,lower_bound\n".to_owned();
    for cell in &results.cells {
        for entry in &cell.entries {
            let verdict = match entry.standing {
                Standing::Best => "best",
                Standing::WithinNoise => "within_noise",
                Standing::Worse => "worse",
            };
            let (scenario, platform, policy) = (&cell.scenario, &cell.platform, &entry.policy);
            let (mean, half, all, bound) = (entry.mean, entry.half_width, entry.of_all_jobs, cell.bound);
            put!(table, "{scenario},{platform},{policy},{verdict},{mean:.6},{half:.6},{all:.6},{bound:.6}");
        }
    }
    table
}

fn percent(fraction: f64) -> String {
    format!("{:.1}%", fraction * 100.0)
}

fn points(fraction: f64) -> String {
    format!("{:.1}", fraction * 100.0)
}

fn micros(ns: f64) -> String {
    format!("{:.1} µs", ns / 1000.0)
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn code(name: &str) -> String {
    format!("`{name}`")
}

/// Policies in the order of their mean over the chips' cells.
fn ranking(results: &Results) -> Vec<&'static str> {
    let mut policies = results.policies();
    let mean = |policy: &str| record(results.group(Group::Chips), policy).mean;
    policies.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
    policies
}

/// The findings, in a sentence each.
fn found(page: &mut String, results: &Results) {
    let policies = results.policies();
    let (chips, accelerators) = (results.group(Group::Chips), results.group(Group::XrBench));
    let cells = results.counted().count();
    put!(page, "## What was found\n");

    let unbeaten = |policy: &str| record(results.counted(), policy).unbeaten();
    let most = policies.iter().map(|policy| unbeaten(policy)).max().unwrap_or(0);
    let leaders: Vec<String> =
        policies.iter().filter(|policy| unbeaten(policy) == most).map(|policy| code(policy)).collect();
    let everywhere = if most == cells { "on every one of them" } else { "not on all" };
    put!(
        page,
        "1. Of {} policies on {cells} cells (a cell is a scenario on a platform: {} app scenarios on chips, {} of XRBench on its accelerators), \
         {} {} unbeaten – best, or within noise of the best – on {most}, {everywhere}.",
        policies.len(),
        chips.clone().count(),
        accelerators.clone().count(),
        listed(&leaders),
        if leaders.len() == 1 { "is" } else { "are each" },
    );

    let on_chips = spread(chips, |entry| entry.mean);
    put!(
        page,
        "2. On the chips the choice of policy moves the mean violation rate from {} (best policy of each cell) to {} (worst) on average: by {} points, or {} of the \
         worst policy's violations; so RTGen's finding (by {} on average) {} here, in {} of the {} cells in which anything is violated.",
        percent(on_chips.lowest),
        percent(on_chips.highest),
        points(on_chips.absolute),
        percent(on_chips.relative),
        percent(RTGEN_SPREAD),
        if on_chips.relative >= 0.4 {
            "– at least 40%, as a relative spread – holds"
        } else {
            "– at least 40%, as a relative spread – does not hold"
        },
        on_chips.at_least_40,
        on_chips.with_violations,
    );

    let overloaded = accelerators.clone().filter(|cell| cell.bound > 0.0).count();
    let on_accelerators = spread(accelerators, |entry| entry.mean);
    put!(
        page,
        "3. On XRBench's accelerators the spread is {} points or {} relative, and at least 40% in {} of {} cells; in {overloaded} of its {} cells no policy at all could meet every \
         deadline (lower bound).",
        points(on_accelerators.absolute),
        percent(on_accelerators.relative),
        on_accelerators.at_least_40,
        on_accelerators.with_violations,
        on_accelerators.cells,
    );

    let own = record(results.counted(), OWN);
    let duels = duels(results);
    put!(
        page,
        "4. Our own `{OWN}` is best on {} cells, within noise on {} and worse on {}; {}.",
        own.best,
        own.within_noise,
        own.worse,
        duels.first().map_or_else(String::new, |duel| rivalry(duel, cells)),
    );

    let slow: Vec<String> = policies
        .iter()
        .filter_map(|policy| results.cost(policy, CROWD).filter(|cost| cost.p99_ns > GOAL_US * 1000.0))
        .map(|cost| format!("{} ({})", code(&cost.policy), micros(cost.p99_ns)))
        .collect();
    let own_cost = results.cost(OWN, CROWD).map_or(0.0, |cost| cost.p99_ns);
    put!(
        page,
        "5. With 64 live jobs a decision of `{OWN}` costs {} at the 99th percentile on the machine that wrote this page (goal: {OWN_GOAL_US} µs, {}); {}.",
        micros(own_cost),
        if own_cost <= OWN_GOAL_US * 1000.0 { "met" } else { "missed" },
        if slow.is_empty() {
            format!("every policy stays below the goal of {GOAL_US} µs")
        } else {
            format!("the goal of {GOAL_US} µs is missed by {}", listed(&slow))
        },
    );
    if !results.left_out.is_empty() {
        put!(
            page,
            "\nLeft out, because they stop a run with an error (a fault of theirs or of the simulator's): {}.",
            listed(&results.left_out)
        );
    }
}

/// The most dangerous rival, in half a sentence.
fn rivalry(duel: &Duel, cells: usize) -> String {
    let goal = cells as f64 * RIVAL_GOAL;
    format!(
        "the strongest rival, `{}`, has fewer violations beyond noise on {} cells and more on {} (goal: no rival on more than a tenth, {goal:.1} cells: {})",
        duel.rival,
        duel.rival_better,
        duel.own_better,
        if duel.rival_better as f64 <= goal { "met" } else { "missed" },
    )
}

fn matrix(page: &mut String, results: &Results) {
    put!(
        page,
        "\n## The matrix\n\nMean violation rate [%] with its 95% interval: over the sources with a deadline or goals, each counting alike (`mean_violation_rate` in \
         [reference/metrics.md](reference/metrics.md)). **Bold**: best, or the same as the best on every seed. ≈: within noise of it (the 95% interval of the paired \
         difference includes zero). A column in which all are equal has no marks. *No policy below*: a lower bound; what is between is not necessarily reachable. Policies in order of \
         their mean over both tables of chips. Every cell, the accelerators' too, is in [results.csv](results.csv).\n"
    );
    let main: Vec<&Cell> = results.group(Group::Chips).filter(|cell| cell.platform == MAIN_PLATFORM).collect();
    put!(page, "### Snapdragon X Elite\n");
    matrix_table(page, results, &main, |cell| cell.scenario.clone());
    let others: Vec<&Cell> =
        results.cells.iter().filter(|cell| cell.group != Group::XrBench && cell.platform != MAIN_PLATFORM).collect();
    put!(
        page,
        "\n### Other chips, and two textbook cases\n\nThe textbook cases (`textbook-edf`, `mm1`) count in no average and no standing.\n"
    );
    matrix_table(page, results, &others, |cell| format!("{}<br>{}", cell.scenario, cell.platform));

    put!(
        page,
        "\n### XRBench's accelerators\n\nMean over the platforms of each scenario; in brackets how many of them the policy is best or within noise on.\n"
    );
    let mut scenarios: Vec<(&str, Vec<&Cell>)> = Vec::new();
    for cell in results.group(Group::XrBench) {
        match scenarios.last_mut() {
            Some((name, cells)) if *name == cell.scenario => cells.push(cell),
            _ => scenarios.push((&cell.scenario, vec![cell])),
        }
    }
    let heads: Vec<String> = scenarios
        .iter()
        .map(|(name, cells)| format!("{}<br>{} platforms", name.trim_start_matches("xrbench-"), cells.len()))
        .collect();
    put!(page, "| policy | {} |\n|---|{}", heads.join(" | "), "---:|".repeat(heads.len()));
    let bounds: Vec<String> = scenarios
        .iter()
        .map(|(_, cells)| points(cells.iter().map(|cell| cell.bound).sum::<f64>() / cells.len() as f64))
        .collect();
    put!(page, "| *no policy below* | {} |", bounds.join(" | "));
    for policy in ranking(results) {
        let row: Vec<String> = scenarios
            .iter()
            .map(|(_, cells)| {
                let record = record(cells.iter().copied(), policy);
                format!("{} ({})", points(record.mean), record.unbeaten())
            })
            .collect();
        put!(page, "| `{policy}` | {} |", row.join(" | "));
    }
}

fn matrix_table(page: &mut String, results: &Results, cells: &[&Cell], head: fn(&Cell) -> String) {
    let heads: Vec<String> = cells.iter().map(|cell| head(cell)).collect();
    put!(page, "| policy | {} |\n|---|{}", heads.join(" | "), "---:|".repeat(heads.len()));
    let bounds: Vec<String> = cells.iter().map(|cell| points(cell.bound)).collect();
    put!(page, "| *no policy below* | {} |", bounds.join(" | "));
    for policy in ranking(results) {
        let row: Vec<String> = cells.iter().map(|cell| marked(cell, cell.entry(policy))).collect();
        put!(page, "| `{policy}` | {} |", row.join(" | "));
    }
}

/// A cell's content with its mark.
fn marked(cell: &Cell, entry: &Entry) -> String {
    let mut text = points(entry.mean);
    if entry.half_width >= 0.0005 {
        write!(text, " ±{}", points(entry.half_width)).expect("writing to a string succeeds");
    }
    let all_equal = cell.entries.iter().all(|entry| entry.standing == Standing::Best);
    match entry.standing {
        Standing::Best if !all_equal => format!("**{text}**"),
        Standing::WithinNoise => format!("≈ {text}"),
        _ => text,
    }
}

fn spreads(page: &mut String, results: &Results) {
    put!(
        page,
        "\n## How much the choice of policy matters\n\n*Absolute*: highest less lowest rate of a cell, mean over cells [points]. *Relative*: (highest − lowest) / highest, mean over the cells in which \
         at least one policy violates something [%]. The more policies, the larger both must be; so *of five* gives the same as expected for five policies drawn at random from \
         ours (mean over all choices), because RTGen compares five. RTGen (Karami et al., arXiv 2507.14715) reports 41.7% on average; its five policies, scenarios and definition of the spread are not \
         public in detail, and nothing here reproduces its tables.\n\n\
         | cells | rate | lowest | highest | absolute | relative | relative ≥ 40% in | absolute of five | relative of five |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
    );
    let chips = results.group(Group::Chips);
    let accelerators = results.group(Group::XrBench);
    for (rate, value) in [
        ("mean violation rate: sources count alike", (|entry| entry.mean) as fn(&Entry) -> f64),
        ("violation rate: jobs count alike", |entry| entry.of_all_jobs),
    ] {
        for (name, spread) in [
            ("chips", spread(chips.clone(), value)),
            ("XRBench", spread(accelerators.clone(), value)),
            ("all", spread(results.counted(), value)),
        ] {
            spread_row(page, name, rate, &spread);
        }
    }
}

fn spread_row(page: &mut String, name: &str, rate: &str, spread: &Spread) {
    put!(
        page,
        "| {name}, {} | {rate} | {} | {} | {} | {} | {} of {} cells | {} | {} |",
        spread.cells,
        percent(spread.lowest),
        percent(spread.highest),
        points(spread.absolute),
        percent(spread.relative),
        spread.at_least_40,
        spread.with_violations,
        points(spread.absolute_of_five),
        percent(spread.relative_of_five),
    );
}

fn standings(page: &mut String, results: &Results) {
    put!(
        page,
        "\n## Where each policy wins and loses\n\nCells in which a policy is best (or the same as the best on every seed) / within noise of the best / worse. *Mean*: of the mean violation rates [%]. \
         *Behind*: mean distance from the best policy of each cell [points]. *Alone*: cells in which it is best and every other policy is worse beyond noise.\n\n\
         | policy | family | chips | mean | behind | XRBench | mean | behind | alone |\n|---|---|---:|---:|---:|---:|---:|---:|---|"
    );
    let families: BTreeMap<&str, &str> = onbeat_policy::all().iter().map(|info| (info.name, info.group)).collect();
    for policy in ranking(results) {
        let columns = |record: &Record| {
            let Record { best, within_noise, worse, mean, behind } = *record;
            format!("{best} / {within_noise} / {worse} | {} | {}", points(mean), points(behind))
        };
        let alone: Vec<&Cell> = wins_alone(results, policy).collect();
        let (on_chips, on_accelerators): (Vec<&Cell>, Vec<&Cell>) =
            alone.iter().partition(|cell| cell.group == Group::Chips);
        let mut alone: Vec<String> = on_chips.iter().map(|cell| cell.name()).collect();
        if !on_accelerators.is_empty() {
            alone.push(format!("{} of XRBench", on_accelerators.len()));
        }
        put!(
            page,
            "| `{policy}` | {} | {} | {} | {} |",
            families[policy],
            columns(&record(results.group(Group::Chips), policy)),
            columns(&record(results.group(Group::XrBench), policy)),
            alone.join(", "),
        );
    }
}

/// Which policies the cells cannot tell apart.
fn twins(page: &mut String, results: &Results) {
    let group = |group: &Vec<&str>| listed(&group.iter().map(|policy| code(policy)).collect::<Vec<_>>());
    let groups: Vec<String> = alike(&results.policies(), &results.cells).iter().map(group).collect();
    if !groups.is_empty() {
        put!(
            page,
            "\nAlike on every seed of every cell, because no cell asks for what sets them apart – memory that models must share, heat and operating points, noise that a plan reacts to: {}. Each \
             counts as a policy above; what they differ in is shown by the worked examples on [their pages](policies/README.md). Violations are not all that matters: none of this weighs energy or quality.",
            groups.join("; ")
        );
    }
}

/// Where our own policy loses, and why.
fn own(page: &mut String, results: &Results) {
    put!(page, "\n## Where `{OWN}` loses, and why\n");
    let cells = results.counted().count();
    put!(
        page,
        "Against each other policy, cells of {cells} in which that one has fewer violations beyond noise / more / no difference; the five most dangerous:\n"
    );
    put!(page, "| rival | rival better | `{OWN}` better | within noise |\n|---|---:|---:|---:|");
    for duel in duels(results).iter().take(5) {
        put!(page, "| `{}` | {} | {} | {} |", duel.rival, duel.rival_better, duel.own_better, duel.within_noise);
    }
    let (with_goals, behind) = generative(results);
    put!(
        page,
        "\nGoals of language models: in {} of the {with_goals} cells that have such goals, some policy with as many violations (within noise) attains them more often (beyond noise){}",
        behind.len(),
        if behind.is_empty() { "." } else { ":" },
    );
    for (cell, entry) in &behind {
        let mean = |entry: &Entry| {
            entry.slo_by_seed.as_ref().map_or(0.0, |values| values.iter().sum::<f64>() / values.len() as f64)
        };
        put!(
            page,
            "{}, `{}` {} against {};",
            cell.name(),
            entry.policy,
            percent(mean(entry)),
            percent(mean(cell.entry(OWN)))
        );
    }
    put!(
        page,
        "\nThe cells in which it is worse than the best, the greatest losses first ({} of {}). *Lost on*: the source whose violation rate is furthest above that under the best policy. \
         *No contention*: the difference with processors that do not slow each other down on the memory bus. Where that is far smaller, the loss comes from plans that use nominal latencies and do not foresee \
         contention; where the source is a session or arrives at random, from jobs that `{OWN}` does not foresee ([its limits](policies/{OWN}.md)).\n",
        results.losses.len().min(LOSSES_MAX),
        results.losses.len(),
    );
    put!(page, "| cell | `{OWN}` | best | loses by | lost on | no contention |\n|---|---:|---|---:|---|---:|");
    for loss in results.losses.iter().take(LOSSES_MAX) {
        let cell = &results.cells[loss.cell];
        let (own, best) = (cell.entry(OWN), cell.best());
        put!(
            page,
            "| {} | {} | `{}` {} | {} | {} | {} |",
            cell.name(),
            points(own.mean),
            best.policy,
            points(best.mean),
            points(loss.difference),
            lost_on(own, best),
            points(loss.without_contention),
        );
    }
}

/// The source on which one policy is furthest behind another.
fn lost_on(own: &Entry, best: &Entry) -> String {
    let pairs = own.sources.iter().filter_map(|(name, ours)| {
        let (_, theirs) = best.sources.iter().find(|(other, _)| other == name)?;
        Some((name, *ours, *theirs))
    });
    let most = pairs.max_by(|a, b| (a.1 - a.2).total_cmp(&(b.1 - b.2)));
    most.map_or_else(String::new, |(name, ours, theirs)| {
        format!("{name}: {} against {}", percent(ours), percent(theirs))
    })
}

fn costs(page: &mut String, results: &Results) {
    put!(
        page,
        "\n## What a decision costs\n\n**Depends on the machine**; `cargo run --release -p onbeat-sim --example decisions` measures it on yours. *Conference*: all decisions of `video-conference` on \
         `{MAIN_PLATFORM}`. *64 jobs*: decisions with 60 to 68 live jobs, of 128 released together once a second on three processors. *× `{YARDSTICK}`*: mean with 64 jobs, relative to `{YARDSTICK}` in the same run. *Allocations*: per decision \
         in the second half of the run with 64 jobs. Each decision is timed in five identical runs and the least time counts, so the figures leave out what else the machine did. \
         Goals: at most {OWN_GOAL_US} µs for `{OWN}` and {GOAL_US} µs for the others, 99th percentile with 64 jobs; **bold** where missed.\n\n\
         | policy | conference: mean | p99 | 64 jobs: decisions | mean | p99 | × `{YARDSTICK}` | allocations |\n|---|---:|---:|---:|---:|---:|---:|---:|"
    );
    let yardstick = results.cost(YARDSTICK, CROWD).map(|cost| cost.mean_ns);
    let mut policies = results.policies();
    let mean = |policy: &str| results.cost(policy, CROWD).map_or(0.0, |cost| cost.mean_ns);
    policies.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
    for policy in policies {
        let goal_ns = 1000.0 * if policy == OWN { OWN_GOAL_US } else { GOAL_US };
        let conference = results
            .cost(policy, CONFERENCE)
            .map_or_else(|| "– | –".to_owned(), |cost| format!("{:.0} ns | {:.0} ns", cost.mean_ns, cost.p99_ns));
        let crowd = results.cost(policy, CROWD).map_or_else(
            || "– | – | – | – | –".to_owned(),
            |cost| {
                let p99 = format!("{:.0} ns", cost.p99_ns);
                let p99 = if cost.p99_ns > goal_ns { format!("**{p99}**") } else { p99 };
                let times = yardstick.map_or(0.0, |yardstick| cost.mean_ns / yardstick);
                format!("{} | {:.0} ns | {p99} | {times:.1} | {:.2}", cost.decisions, cost.mean_ns, cost.allocations)
            },
        );
        put!(page, "| `{policy}` | {conference} | {crowd} |");
    }
}

fn method(page: &mut String, results: &Results) {
    let (shortest, longest) = results
        .counted()
        .fold((f64::MAX, 0.0_f64), |(low, high), cell| (low.min(cell.duration_s), high.max(cell.duration_s)));
    let rustc = output_of("rustc", &["--version"]).unwrap_or_else(|_| "an unknown rustc".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    put!(
        page,
        "\n## How it was measured\n\n\
         * Command: `cargo xtask results{}`. It writes this page and [results.csv](results.csv). Here it took {:.0} s on {cores} cores, without building (depends on the machine).\n\
         * Cells: every shipped scenario on each platform of its `runs_on`, at its own length ({shortest} to {longest} s of simulated time).\n\
         * Policies: all, with their defaults. Seeds 1 to {}, the same for every policy: arrivals, lengths and execution times are common. Intervals: Student's t at 95%, over seeds; differences between policies are taken seed by seed.\n\
         * Versions: onbeat {}, {}. All figures but those of decision costs are the same on every machine.\n\
         * The scenarios are RTGen-style: their rates and goals are ours or the cited sources', not that paper's. What the figures of each cell rest on – measured, published or analytical – `onbeat compare SCENARIO --platform PLATFORM` says. \
         What the simulator leaves out: [semantics.md](semantics.md).",
        if results.seeds == super::DEFAULT_SEEDS { String::new() } else { format!(" {}", results.seeds) },
        results.seconds,
        results.seeds,
        env!("CARGO_PKG_VERSION"),
        rustc.trim(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::findings::tests::cell;

    #[test]
    fn marks_show_the_best_and_the_noise() {
        let mut cell = cell(&[("a", 0.1), ("b", 0.12), ("c", 0.3)]);
        cell.entries[1].standing = Standing::WithinNoise;
        cell.entries[2].half_width = 0.012;
        let shown: Vec<String> = cell.entries.iter().map(|entry| marked(&cell, entry)).collect();
        assert_eq!(shown, ["**10.0**", "≈ 12.0", "30.0 ±1.2"]);
    }

    #[test]
    fn equal_policies_are_not_marked() {
        let cell = cell(&[("a", 0.0), ("b", 0.0)]);
        assert_eq!(marked(&cell, &cell.entries[0]), "0.0");
    }

    #[test]
    fn a_loss_names_the_source_that_suffers_most() {
        let (mut own, mut best) = (cell(&[("a", 0.1)]).entries.remove(0), cell(&[("b", 0.1)]).entries.remove(0));
        own.sources = vec![("camera".to_owned(), 0.5), ("chat".to_owned(), 0.25)];
        best.sources = vec![("camera".to_owned(), 0.4), ("chat".to_owned(), 0.0)];
        assert_eq!(lost_on(&own, &best), "chat: 25.0% against 0.0%");
    }

    #[test]
    fn lists_read_as_people_write_them() {
        let names = |names: &[&str]| listed(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["a"]), "a");
        assert_eq!(names(&["a", "b", "c"]), "a, b and c");
    }
}
