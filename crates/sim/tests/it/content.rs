//! Content: what there is to see follows from the seed and the time, and changes what inferences cost and how good they are.

use std::fmt::Write;

use onbeat_core::event::{DropCause, Event, What};
use onbeat_core::metric::Metric;
use onbeat_core::policy::{Actions, View};
use onbeat_core::system::System;
use onbeat_core::units::{Bytes, Nanos};
use onbeat_sim::simulate;
use proptest::prelude::*;

use crate::support::{Script, done_at, first_come, run, run_script, system};

/// Two cameras look at the same street, a third one at another. Their network takes 4 ms in two segments, moves 10 MB and costs 6 mJ; a small one takes 2 ms. Where it
/// is crowded, an inference is twice the work.
const STREETS: &str = r#"
    name = "streets"
    duration_s = 20
    [platform]
    name = "p"
    memory = {}
    [[platform.processor]]
    name = "npu"
    kind = "npu"
    preemption = "segment"

    [content.main-street]
    classes = [{ name = "empty", share = 0.5, scene_s = 0.5 }, { name = "crowded", share = 0.5, scene_s = 0.25 }]
    [content.side-street]
    classes = [{ name = "empty", share = 0.5, scene_s = 0.5 }, { name = "crowded", share = 0.5, scene_s = 0.25 }]

    [[stream]]
    name = "north"
    chain = "see"
    period_ms = 20
    content = "main-street"
    [[stream]]
    name = "south"
    chain = "see"
    period_ms = 40
    jitter_ms = { kind = "uniform", low = 0, high = 100 }
    content = "main-street"
    queue = 1
    [[stream]]
    name = "side"
    chain = "see"
    period_ms = 20
    content = "side-street"
    drop = "hopeless"

    [[chain.see.stage]]
    name = "detect"
    model = "net"
    variants = ["net/small"]
    work_by_content = { crowded = 2 }

    [model.net]
    quality = { metric = "mAP", value = 0.75, higher_is_better = true, by_content = { empty = 0.8, crowded = 0.5 } }
    variant.small = { quality = { metric = "mAP", value = 0.6, higher_is_better = true, by_content = { empty = 0.78, crowded = 0.3 } } }
    [[cost]]
    model = "net"
    processor = "npu"
    latency_ms = 4
    segments = 2
    bytes_mb = 10
    energy_mj = 6
    [[cost]]
    model = "net"
    variant = "small"
    processor = "npu"
    latency_ms = 2
    energy_mj = 3
"#;

/// A camera that only ever sees what is crowded, or empty.
fn always(class: &str, stream: &str) -> String {
    let shares = if class == "crowded" { (1e-6, 0.999_999) } else { (0.999_999, 1e-6) };
    let scenes = |name: &str, share: f64| {
        let scene_s = if name == class { 86_400.0 } else { 0.001 };
        format!("{{ name = \"{name}\", share = {share}, scene_s = {scene_s} }}")
    };
    let classes = format!("classes = [{}, {}]", scenes("empty", shares.0), scenes("crowded", shares.1));
    let (head, rest) = STREETS.split_once("[content.main-street]").unwrap();
    let chain = &rest[rest.find("[[chain").unwrap()..];
    format!(
        "{head}[content.main-street]\n{classes}\n[[stream]]\nname = \"camera\"\nchain = \"see\"\nperiod_ms = 20\ncontent = \"main-street\"\n\
         {stream}\n{chain}"
    )
}

/// What each job of a source sees, by nominal time.
fn seen(system: &System, events: &[Event], source: &str) -> Vec<(Nanos, u8)> {
    let of = |event: &Event| match event.what {
        What::Release { source: s, nominal, content, .. } if system.sources[s].name == source => {
            Some((nominal, content.expect("the source looks at something")))
        }
        _ => None,
    };
    let mut all: Vec<_> = events.iter().filter_map(of).collect();
    all.sort_unstable();
    all
}

#[test]
fn those_who_look_at_the_same_see_the_same_whatever_delays_them() {
    let (system, events) = run_script(STREETS, first_come);
    let [north, south, side] = ["north", "south", "side"].map(|source| seen(&system, &events, source));
    assert!(south.len() > 400 && south.iter().all(|frame| north.contains(frame)));
    assert!(north.iter().zip(&side).filter(|(a, b)| a != b).count() > 300, "another street is another street");
    let changes = north.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
    // 0.5 s · 3/2 and 0.25 s · 3: stays of 0.75 s each, 20 s.
    assert!((15..40).contains(&changes), "{changes} changes of class");
    let alone = STREETS.replace(
        "name = \"north\"\n    chain = \"see\"\n    period_ms = 20",
        "name = \"north\"\n    chain = \"see\"\n    period_ms = 25",
    );
    let (system, events) = run_script(&alone, first_come);
    assert_eq!(seen(&system, &events, "south"), south, "how often others look changes nothing");
}

#[test]
fn what_is_crowded_is_more_work_and_policies_know() {
    fn knows(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            assert_eq!(view.content(stage), Some(1));
            let npu = view.processors().next().unwrap();
            assert_eq!(view.remaining(stage, npu), Some(Nanos(8_000_000)));
            assert_eq!(view.remaining_as(stage, 1, npu), Some(Nanos(4_000_000)));
            assert_eq!(view.quality(stage, 1), Some(0.3 / 0.5));
        }
        first_come(view, actions);
    }
    let (system, events) = run_script(&always("crowded", "count = 2"), knows);
    assert_eq!(done_at(&system, &events, "camera"), [8.0, 28.0]);
    let stops: Vec<_> = events
        .iter()
        .filter_map(|event| match event.what {
            What::Stop { alone, bytes, energy_mj, .. } => Some((alone, bytes, energy_mj)),
            _ => None,
        })
        .collect();
    assert_eq!(stops, vec![(Nanos(8_000_000), Bytes(20_000_000), Some(12.0)); 2]);
    // No job is shorter than the small network's where it is empty.
    assert_eq!(system.sources.as_slice()[0].shortest, Nanos(2_000_000));
    let (system, events) = run_script(&always("empty", "count = 2"), first_come);
    assert_eq!(done_at(&system, &events, "camera"), [4.0, 24.0]);
}

#[test]
fn segments_grow_with_the_work() {
    /// Takes what runs off at once, whatever it is.
    fn hasty(view: &View<'_>, actions: &mut Actions) {
        first_come(view, actions);
        for p in view.processors() {
            for run in view.occupancy(p).runs.iter().filter(|run| !run.ending) {
                actions.preempt(run.stage);
            }
        }
    }
    let other = "[[stream]]\nname = \"other\"\nchain = \"see\"\nperiod_ms = 20\nphase_ms = 1\ncontent = \"main-street\"\ncount = 1\n";
    let toml = always("crowded", &format!("count = 1\n{other}"));
    let (system, events) = run_script(&toml, hasty);
    // The first frame is asked to stop at 1 ms and does so at the end of its first segment, after 4 of its 8 ms; the other one goes first then.
    assert_eq!(done_at(&system, &events, "camera"), [16.0]);
    let stops = crate::support::times(&events, |what| matches!(what, What::Stop { .. }));
    assert_eq!(stops[0], Nanos(4_000_000));
}

#[test]
fn a_job_is_hopeless_by_what_it_sees() {
    // The processor is busy until 14 ms; the small network takes 4 ms where it is crowded and 2 where it is empty.
    let dropped = |class: &str, deadline: u32| {
        let stream = format!("count = 1\nphase_ms = 1\ndrop = \"hopeless\"\ndeadline_ms = {deadline}");
        let blocker = "[[stream]]\nname = \"blocker\"\nmodel = \"block\"\nperiod_ms = 1000\ncount = 1\n[model.block]\n[[cost]]\nmodel = \"block\"\nprocessor = \"npu\"\nlatency_ms = 14\n";
        let (_, events) = run_script(&format!("{}{blocker}", always(class, &stream)), first_come);
        let drop = |event: &&Event| matches!(event.what, What::Drop { cause: DropCause::Hopeless, .. });
        events.iter().find(drop).map(|event| event.at.as_ms().round())
    };
    assert_eq!(dropped("crowded", 10), Some(7.0), "due at 11, 4 before that");
    assert_eq!(dropped("empty", 10), Some(9.0));
    assert_eq!((dropped("empty", 20), dropped("crowded", 20)), (None, None));
}

#[test]
fn quality_is_that_of_what_is_seen() {
    let quality = |toml: &str, script: fn(&View<'_>, &mut Actions)| {
        let system = system(toml);
        let statistics = onbeat_analysis::statistics::Statistics::new(&system, 1, "test");
        let (_, statistics) = simulate(&system, Box::new(Script(script)), "test", 1, statistics).unwrap();
        statistics.finish().sources[0].clone()
    };
    let small = |view: &View<'_>, actions: &mut Actions| {
        for &stage in view.ready().iter().filter(|&&stage| view.stage(stage).variant == 0) {
            actions.switch(stage, 1);
        }
        first_come(view, actions);
    };
    for (class, script, score, relative) in [
        ("empty", first_come as fn(&View<'_>, &mut Actions), 0.8, 1.0),
        ("crowded", first_come, 0.5, 1.0),
        ("empty", small, 0.78, 0.78 / 0.8),
        ("crowded", small, 0.3, 0.3 / 0.5),
    ] {
        let found = quality(&always(class, "count = 3"), script);
        assert!((found.values[&Metric::Quality] - score).abs() < 1e-12, "{class}: {:?}", found.values);
        assert!((found.values[&Metric::RelativeQuality] - relative).abs() < 1e-12, "{class}: {:?}", found.values);
        let ran = found.variants.iter().find(|variant| variant.share == 1.0).unwrap();
        assert!((ran.quality.as_ref().unwrap().1 - score).abs() < 1e-12 && found.variants.len() == 2);
    }
    // Where not all variants state their quality for a class, that over all content counts for all of them.
    let partly = always("crowded", "count = 3").replace(", crowded = 0.3", "");
    assert!((quality(&partly, small).values[&Metric::Quality] - 0.6).abs() < 1e-12);
    assert!(system(&partly).warnings.iter().any(|warning| warning.contains("quality in content `crowded`")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever decides, and however late it is: the same frames show the same.
    #[test]
    fn no_policy_changes_what_there_is_to_see(seed in 0_u64..1000) {
        let system = system(STREETS);
        let mut first = None;
        for name in ["fcfs", "content-aware", "content-aware:content=false", "onbeat", "dream", "mixed-criticality", "skip-over"] {
            let events = run(&system, onbeat_policy::make(name, &system).unwrap(), seed);
            let all = ["north", "south", "side"].map(|source| seen(&system, &events, source));
            prop_assert_eq!(first.get_or_insert_with(|| all.clone()), &all, "{}", name);
        }
    }
}

proptest! {
    /// Better networks make nobody late: what the lightest ones do in time, `content-aware` does in time too.
    #[test]
    fn gaining_quality_makes_nobody_late(
        frames in prop::collection::vec((0_usize..3, 5_u32..60, any::<bool>()), 2..7),
        heavy in 4_u32..20,
        share in 1_u32..9,
    ) {
        let scenario = |variant: &str| {
            let mut toml =
                "name = \"frames\"\nduration_s = 0.2\n\
                 [content.slow]\nclasses = [{ name = \"slow\", share = 1, scene_s = 1 }]\n\
                 [content.fast]\nclasses = [{ name = \"fast\", share = 1, scene_s = 1 }]\n\
                 [platform]\nname = \"p\"\nmemory = {}\nprocessor = [{ name = \"npu\", kind = \"npu\" }]\n".to_owned();
            for (m, size) in [1, 2, 3].into_iter().enumerate() {
                let score = |name: &str, all: f64, fast: f64| {
                    format!("[model.{name}.quality]\nmetric = \"q\"\nvalue = {all}\nhigher_is_better = true\nby_content = {{ slow = {all}, fast = {fast} }}\n")
                };
                toml += &score(&format!("m{m}"), 0.9, 0.8);
                toml += &score(&format!("m{m}.variant.light"), 0.8, 0.3);
                let whole = f64::from(heavy * size);
                for (extra, ms) in [("", whole), ("variant = \"light\"\n", whole * f64::from(share) / 10.0)] {
                    writeln!(toml, "[[cost]]\nmodel = \"m{m}\"\nprocessor = \"npu\"\n{extra}latency_ms = {ms}").unwrap();
                }
                writeln!(toml, "[[chain.c{m}.stage]]\nname = \"s\"\nmodel = \"m{m}\"\n{variant}").unwrap();
            }
            for (i, (m, deadline, fast)) in frames.iter().enumerate() {
                let content = if *fast { "fast" } else { "slow" };
                writeln!(
                    toml,
                    "[[stream]]\nname = \"f{i}\"\nchain = \"c{m}\"\nperiod_ms = 100\ndeadline_ms = {deadline}\ncount = 1\ncontent = \"{content}\""
                )
                .unwrap();
            }
            system(&toml)
        };
        let result = |system: &System, policy: &str| {
            let statistics = onbeat_analysis::statistics::Statistics::new(system, 1, policy);
            let policy = onbeat_policy::make(policy, system).unwrap();
            let values = simulate(system, policy, "test", 1, statistics).unwrap().1.finish().run;
            (values[&Metric::Violations], values[&Metric::Quality])
        };
        let (late, worst) = result(&scenario("variant = \"light\""), "edf");
        let choice = scenario("variants = \"any\"");
        for policy in ["content-aware", "content-aware:content=false"] {
            let (violations, quality) = result(&choice, policy);
            prop_assert!(quality >= worst - 1e-12);
            if late == 0.0 {
                prop_assert_eq!(violations, 0.0, "{}", policy);
            }
        }
    }
}
