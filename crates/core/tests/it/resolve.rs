//! What the files mean: small scenarios against values worked out by hand.

use std::io;

use onbeat_core::cost::{Phase, PhaseCost, Work};
use onbeat_core::id::{Id, NodeId, ProcessorId, SourceId};
use onbeat_core::spec::{Library, NoFiles, Options, ProvenanceKind};
use onbeat_core::system::{Arrival, Request, System};
use onbeat_core::units::{Bytes, Nanos};

use crate::mistakes::GOOD;

fn system(text: &str) -> System {
    System::from_toml(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn with(options: &Options) -> System {
    Library::shipped()
        .resolve_text("good.toml", GOOD, None, options, &NoFiles)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn set(changes: &[&str]) -> System {
    with(&Options { overrides: changes.iter().map(|&change| change.to_owned()).collect(), ..Options::default() })
}

/// Two processors, of which the first is a pair, and models that take 1, 2, 4 and 8 ms.
fn chain_of(stages: &str, more: &str) -> System {
    system(&format!(
        "name = 's'\nduration_s = 1\nstream = [{{ name = 'x', chain = 'c', fps = 10 }}]\nchain.c.stage = {stages}\n\
         model = {{ one = {{}}, two = {{}}, four = {{}}, eight = {{}} }}\n\
         cost = [\n{{ model = 'one', processor = 'cpu', latency_ms = 1 }},\n{{ model = 'two', processor = 'cpu', latency_ms = 2 }},\n\
         {{ model = 'four', processor = 'cpu', latency_ms = 4 }},\n{{ model = 'eight', processor = 'npu', latency_ms = 8 }},\n\
         {{ model = 'eight', processor = 'cpu', latency_ms = 9 }},\n]\n\
         platform = {{ name = 'p', memory = {{ handover_us = 30 }}, processor = [{{ name = 'cpu', kind = 'cpu', count = 2 }}, \
         {{ name = 'npu', kind = 'npu' }}] }}\n{more}"
    ))
}

#[test]
fn stages_come_in_an_order_in_which_edges_lead_forwards() {
    let system = chain_of(
        "[{ name = 'last', model = 'one', after = [{ stage = 'b' }, { stage = 'a' }] }, { name = 'b', model = 'two', after = [{ stage = 'a' }] }, \
         { name = 'a', model = 'four' }]",
        "",
    );
    let names: Vec<&str> = system.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "last"]);
    assert_eq!(system.nodes[NodeId(2)].before, [NodeId(1), NodeId(0)]);
    assert_eq!(system.nodes_of(SourceId(0)).len(), 3);
    let source = &system.sources[SourceId(0)];
    assert_eq!(source.shortest, Nanos::from_ms(7.0));
    assert_eq!(system.nodes[NodeId(0)].tail, Nanos::from_ms(3.0));
    assert_eq!(source.deadline, Some(Nanos::from_ms(100.0)), "the period");
}

#[test]
fn what_is_uncertain_is_no_part_of_a_bound() {
    let system = chain_of(
        "[{ name = 'a', model = 'one' }, { name = 'b', model = 'eight', after = [{ stage = 'a', probability = 0.9 }] }, \
         { name = 'c', model = 'two', after = [{ stage = 'a', fan_out = { kind = 'uniform', low = 0, high = 3 } }] }, \
         { name = 'd', model = 'four', after = [{ stage = 'a', fan_out = { kind = 'uniform', low = 1, high = 3 } }] }]",
        "",
    );
    assert_eq!(system.sources[SourceId(0)].shortest, Nanos::from_ms(5.0));
    let fastest = &system.nodes[NodeId(1)];
    assert_eq!(system.platform.processors[fastest.fastest].name, "npu");
    assert_eq!((fastest.best, fastest.tail), (Nanos::from_ms(8.0), Nanos::ZERO));
}

#[test]
fn stages_before_an_answer_know_how_long_it_takes_to_its_first_token() {
    let system = system(
        "name = 's'\nduration_s = 1\nsession = [{ name = 'x', chain = 'c', ttft_ms = 500, arrival = { process = 'poisson', rate_per_s = 1 } }]\n\
         chain.c.stage = [{ name = 'a', model = 'two' }, { name = 'b', model = 'two', after = [{ stage = 'a', probability = 0.5 }] }, \
         { name = 'say', model = 'llm', prompt = 100, output = 10, after = [{ stage = 'b' }] }, { name = 'voice', model = 'two', after = [{ stage = 'say' }] }]\n\
         model = { two = {}, llm = { shape = 'autoregressive' } }\n\
         cost = [{ model = 'two', processor = 'cpu', latency_ms = 2 }, { model = 'llm', processor = 'cpu', prefill_ms = [[100, 50]], decode_ms = [[0, 7]] }]\n\
         platform = { name = 'p', memory = {}, processor = [{ name = 'cpu', kind = 'cpu' }] }\n",
    );
    let rest: Vec<_> = system.nodes.iter().map(|node| node.to_first_token.map(Nanos::as_ms)).collect();
    // What follows counts though it is not certain, and a prompt's 50 ms, but no step of the answer.
    assert_eq!(rest, [Some(52.0), Some(50.0), Some(0.0), None]);
}

#[test]
fn variation_lowers_the_bounds_but_not_the_nominal_latency() {
    let stages = "[{ name = 'a', model = 'two' }, { name = 'b', model = 'four', after = [{ stage = 'a' }] }]";
    let uniform = chain_of(stages, "variation = { kind = 'uniform', spread = 0.25 }\n");
    assert_eq!(uniform.sources[SourceId(0)].shortest, Nanos::from_ms(4.5));
    assert_eq!(uniform.nodes[NodeId(0)].tail, Nanos::from_ms(3.0));
    assert_eq!(uniform.nodes[NodeId(0)].best, Nanos::from_ms(2.0));
    let lognormal = chain_of(stages, "variation = { kind = 'lognormal', spread = 0.25 }\n");
    assert_eq!(lognormal.sources[SourceId(0)].shortest, Nanos::ZERO);
    assert!(lognormal.assumptions.iter().any(|text| text.contains("no lower bound")));
}

#[test]
fn identical_units_share_costs_and_hand_over_at_the_memory_s_cost() {
    let system = chain_of(
        "[{ name = 'a', model = 'one', on = ['cpu'] }, { name = 'b', model = 'eight', on = ['cpu1', 'npu'] }]",
        "",
    );
    let names: Vec<&str> = system.platform.processors.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["cpu0", "cpu1", "npu"]);
    let can_run = |node: u32| system.nodes[NodeId(node)].costs.iter().map(Option::is_some).collect::<Vec<bool>>();
    assert_eq!(can_run(0), [true, true, false]);
    assert_eq!(can_run(1), [false, true, true]);
    let link = |from: u32, to: u32| system.platform.links[ProcessorId(from)][ProcessorId(to)].latency;
    assert_eq!([link(0, 0), link(0, 1), link(0, 2)], [Nanos::ZERO, Nanos::from_us(30.0), Nanos::from_us(30.0)]);
    let group = |id: u32| system.platform.processors[ProcessorId(id)].group;
    assert!(group(0) == group(1) && group(1) != group(2));
}

#[test]
fn links_of_a_pair_replace_the_memory_s_cost_both_ways() {
    let link = "[[platform.link]]\nfrom = 'gpu'\nto = 'npu'\nlatency_us = 7\nbandwidth_gbps = 2\n";
    let system = system(&GOOD.replace("[source.guess]", &format!("{link}\n[source.guess]")));
    let time = |from: u32, to: u32| system.platform.links[ProcessorId(from)][ProcessorId(to)].time(2000.0);
    // 2000 bytes at 2 bytes/ns take 1 µs.
    assert_eq!((time(0, 1), time(1, 0), time(0, 0)), (Nanos::from_us(8.0), Nanos::from_us(8.0), Nanos::ZERO));
}

#[test]
fn language_models_have_prefill_and_decode_with_their_bytes() {
    let system = with(&Options { bytes_scale: 0.5, ..Options::default() });
    let think = system.nodes.iter().find(|node| node.name == "think").unwrap();
    let cost = think.costs[system.processor("gpu").unwrap()].as_ref().unwrap();
    assert_eq!(think.expected, Work { prompt: 64, output: 32, steps: 0, exit: 1.0, scale: 1.0 });
    assert_eq!(think.output_max, 32);
    let PhaseCost::Prefill { bytes_per_segment, latency_ns, .. } = &cost.phases[0].1 else {
        panic!("prefill comes first")
    };
    assert_eq!((*bytes_per_segment, latency_ns.at(16.0), latency_ns.at(8.0)), (250e6, 20e6, 10e6));
    let PhaseCost::Decode { bytes_per_step, bytes_per_context_token, step_ns, .. } = &cost.phases[1].1 else {
        panic!("then decode")
    };
    assert_eq!((*bytes_per_step, *bytes_per_context_token, step_ns.curve().at(1024.0)), (250e6, 15e3, 20e6));
    let model = &system.models[think.model];
    assert_eq!((model.weights, model.kv_per_token), (Bytes(500_000_000), Bytes(30_000)));
    assert!(
        system.figures.iter().any(|f| f.kind == ProvenanceKind::Analytical && f.what == "writer on gpu: bytes moved")
    );
    assert!(system.assumptions.iter().any(|text| text == "All bytes moved are multiplied by 0.5."));
    // The session's lengths belong to its stage; the chain's stage has its own.
    let chat = system.nodes.iter().last().unwrap();
    assert_eq!(chat.output.as_ref().and_then(onbeat_core::distribution::Distribution::as_constant), Some(50.0));
    assert_eq!(chat.output_max, 50);
    assert_eq!(chat.prompt.as_ref().map(|d| (d.min, d.max)), Some((16.0, 1000.0)));
}

#[test]
fn priorities_are_rate_monotonic_below_all_explicit_ones() {
    let system = set(&["stream.voice.priority=0"]);
    let priority = |name: &str| system.sources.iter().find(|s| s.name == name).unwrap().priority;
    assert_eq!([priority("camera"), priority("voice"), priority("chat")], [-1, 0, -1_000_000]);
    let text = "name = 's'\nduration_s = 1\nmodel.m = {}\ncost = [{ model = 'm', processor = 'cpu', latency_ms = 1 }]\n\
        platform = { name = 'p', memory = {}, processor = [{ name = 'cpu', kind = 'cpu' }] }\n\
        stream = [{ name = 'a', model = 'm', fps = 10 }, { name = 'b', model = 'm', fps = 30 }, { name = 'c', model = 'm', fps = 10 }]\n";
    let priorities: Vec<i32> = self::system(text).sources.iter().map(|s| s.priority).collect();
    assert_eq!(priorities, [-2, -1, -2]);
}

#[test]
fn phases_that_touch_become_one_period() {
    let phases = "[[phase]]\nname = \"late\"\nstart_s = 8\nend_s = 9\n\n[[phase]]\nname = \"more\"\nstart_s = 5\nend_s = 7\n\n[[phase]]\nname = \"call\"";
    let text = GOOD
        .replacen("[[phase]]\nname = \"call\"", phases, 1)
        .replace("during = [\"call\"]", "during = [\"late\", \"call\", \"more\"]");
    let secs = |s: u64| Nanos(s * 1_000_000_000);
    assert_eq!(system(&text).sources[SourceId(0)].active, [(secs(0), secs(7)), (secs(8), secs(9))]);
}

#[test]
fn overrides_and_switches_reach_the_system() {
    let system = with(&Options {
        overrides: vec![
            "stream.camera.fps=20".to_owned(),
            "platform.memory.bandwidth_gbps=10".to_owned(),
            "title=Mine".to_owned(),
        ],
        duration: Some(Nanos::from_secs(3.0)),
        contention: false,
        ..Options::default()
    });
    assert_eq!(
        system.sources[SourceId(0)].arrival,
        Arrival::Periodic { first: Nanos::ZERO, period: Nanos::from_ms(50.0) }
    );
    assert_eq!((system.duration, system.contention, system.title.as_str()), (Nanos::from_secs(3.0), false, "Mine"));
    assert_eq!(system.platform.bandwidth, Some(10.0));
    // 500 MB of weights in steps of 10 ms do not fit through 10 GB/s.
    assert!(
        system.warnings.iter().any(|text| text.starts_with("writer on gpu: bytes moved and latency need")),
        "{:?}",
        system.warnings
    );
}

#[test]
fn a_platform_file_takes_overrides_as_well() {
    let options = Options { overrides: vec!["platform.memory.capacity_gb=1".to_owned()], ..Options::default() };
    let resolve = |options: &Options| Library::shipped().resolve("blur-and-whisper", None, options, &NoFiles).unwrap();
    assert_eq!(resolve(&options).platform.capacity, Some(Bytes(1_000_000_000)));
    assert_eq!(resolve(&Options::default()).platform.name, "intel-npu-3720");
}

#[test]
fn another_model_takes_the_place_of_one_without_a_profile() {
    let text =
        GOOD.replace("model = \"speaker\", size = 40", "model = \"detector/small\", or = [\"speaker\"], size = 40");
    let system = system(&text);
    let speak = system.nodes.iter().find(|node| node.name == "speak").unwrap();
    assert_eq!(system.models[speak.model].name, "speaker");
    let note = "Stage `speak` runs `speaker` in place of `detector/small`, of which `toy` has no profile.";
    assert!(system.assumptions.iter().any(|text| text == note), "{:?}", system.assumptions);
}

#[test]
fn variants_have_their_own_weights_and_costs() {
    let cost = "[[cost]]\nmodel = \"detector\"\nvariant = \"small\"\nprocessor = \"npu\"\nlatency_ms = 2\n\n[platform]";
    let text =
        GOOD.replace("[platform]", cost).replacen("model = \"detector\"\nfps", "model = \"detector/small\"\nfps", 1);
    let system = system(&text);
    let camera = &system.nodes[NodeId::new(0)];
    let model = &system.models[camera.model];
    assert_eq!(
        (model.name.as_str(), model.weights, camera.best),
        ("detector/small", Bytes(1_000_000), Nanos::from_ms(2.0))
    );
}

#[test]
fn users_profiles_go_before_shipped_ones_and_after_the_scenario_s_own() {
    let profile = |ms: u32| {
        format!(
            "platform = 'intel-npu-3720'\n[[cost]]\nmodel = 'selfie-multiclass'\nprocessor = 'npu'\nlatency_ms = {ms}\nsource = 'mine'\n\
             [source.mine]\nkind = 'measured'\nfrom = 'my desk'\n"
        )
    };
    let files = |path: &str| -> io::Result<String> {
        match path {
            "a.toml" => Ok(profile(3)),
            "b.toml" => Ok(profile(5)),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "not found")),
        }
    };
    let best = |profiles: &[&str]| {
        let options = Options { profiles: profiles.iter().map(|&p| p.to_owned()).collect(), ..Options::default() };
        let system = Library::shipped().resolve("blur-and-whisper", Some("intel-npu-3720"), &options, &files).unwrap();
        (
            system.nodes[NodeId(0)].best,
            system.figures[system.nodes[NodeId(0)].costs[ProcessorId(0)].as_ref().unwrap().figure as usize]
                .source
                .clone(),
        )
    };
    assert_eq!(best(&["a.toml"]), (Nanos::from_ms(3.0), "my desk".to_owned()));
    assert_eq!(best(&["a.toml", "b.toml"]).0, Nanos::from_ms(5.0), "the last one counts");
    assert_eq!(best(&[]).0, Nanos::from_ms(14.3));
}

#[test]
fn a_trace_gives_arrivals_and_lengths() {
    let files = |path: &str| -> io::Result<String> {
        assert_eq!(path, "here/trace.csv", "relative to the scenario's file");
        Ok("TIMESTAMP,ContextTokens,GeneratedTokens\n5.0,100,10\n6.0,200,20\n8.5,600,30\n".to_owned())
    };
    let text = GOOD
        .replace(
            "{ process = \"poisson\", rate_per_s = 0.5 }",
            "{ process = \"trace\", file = \"trace.csv\", to_s = 3, speed = 2, max_prompt = 150 }",
        )
        .replace(
            "prompt = { kind = \"lognormal\", median = 100, sigma = 0.5, min = 16, max = 1000 }\noutput = 50\n",
            "",
        );
    let system = Library::shipped().resolve_text("here/s.toml", &text, None, &Options::default(), &files);
    let system = system.unwrap_or_else(|errors| panic!("{errors}"));
    let chat = system.sources.iter().find(|s| s.name == "chat").unwrap();
    let requests = vec![
        Request { at: Nanos::ZERO, prompt: 100, output: 10 },
        Request { at: Nanos::from_ms(500.0), prompt: 150, output: 20 },
    ];
    assert_eq!(chat.arrival, Arrival::Trace { requests });
    let node = system.nodes.iter().last().unwrap();
    assert!(node.prompt.is_none() && node.output.is_none());
    assert_eq!(
        (node.expected, node.output_max),
        (Work { prompt: 125, output: 15, steps: 0, exit: 1.0, scale: 1.0 }, 20)
    );
}

#[test]
fn tables_that_do_not_reach_far_enough_are_warned_about() {
    let system = set(&["session.chat.prompt=3000", "chain.answer.stage.speak.size=400"]);
    let warned = |text: &str| system.warnings.iter().any(|warning| warning.starts_with(text));
    assert!(warned("writer on gpu: prompt lengths of 3000 reach beyond"), "{:?}", system.warnings);
    assert!(warned("writer on gpu: context lengths of 3001 to 3050 reach beyond"), "{:?}", system.warnings);
    assert!(warned("speaker on npu: size 400 lies outside"), "{:?}", system.warnings);
}

#[test]
fn parts_around_a_loop_must_be_the_same_everywhere() {
    let more = "[[cost]]\nmodel = \"painter\"\nprocessor = \"npu\"\nstep_ms = 80\nbefore_ms = 3\n\n[platform]";
    let errors = System::from_toml(&GOOD.replace("[platform]", more)).unwrap_err().to_string();
    assert!(errors.contains("`before_ms` and `after_ms` of `painter` are given on some processors only"), "{errors}");
    let before = format!("step_ms = 50\nbefore_ms = 4\n\n{}", more.trim_end_matches("[platform]"));
    let system = system(&GOOD.replacen("step_ms = 50\n", &before, 1));
    let paint = system.nodes.iter().find(|node| node.name == "paint").unwrap();
    let kinds: Vec<Phase> =
        paint.costs[ProcessorId(0)].as_ref().unwrap().phases.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Phase::Before, Phase::Steps]);
    assert_eq!(paint.best, Nanos::from_ms(204.0));
}

#[test]
fn the_hash_depends_on_the_contents_alone() {
    assert_eq!(system(GOOD).hash(), system(&format!("# A comment.\n{GOOD}")).hash());
    assert_ne!(system(GOOD).hash(), set(&["stream.camera.fps=29"]).hash());
}

#[test]
fn the_factor_on_bytes_counts_for_what_attention_reads_too() {
    let scaled = |bytes_scale: f64| {
        let options = Options { bytes_scale, ..Options::default() };
        let system = Library::shipped().resolve_text("damage.toml", crate::damage::SCENARIO, None, &options, &NoFiles);
        let system = system.unwrap_or_else(|errors| panic!("{errors}"));
        let node = system.nodes.iter().last().unwrap();
        let PhaseCost::Decode { bytes_per_context_token, .. } =
            node.costs[ProcessorId(1)].as_ref().unwrap().phases[1].1
        else {
            panic!("then decode")
        };
        (node.attention.as_ref().unwrap().cache_per_token, bytes_per_context_token)
    };
    assert_eq!(scaled(1.0), (100e3, 100e3));
    assert_eq!(scaled(0.5), (50e3, 50e3));
}
