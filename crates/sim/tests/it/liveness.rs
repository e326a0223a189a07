//! Nobody waits for ever: memory that idle-time work holds is given up, and under every policy every job ends.

use std::collections::BTreeMap;
use std::fmt::Write;

use onbeat_core::event::{Event, What};
use onbeat_core::system::System;
use onbeat_sim::{Checker, simulate};
use proptest::prelude::*;

use crate::caches::llm;
use crate::support::{done_at, jobs_of, request, run, system, times};

/// An answer of idle-time work, and a chat that needs the memory that it holds.
fn idle_answer_and_chat(memory: &str, chat_at_ms: u32) -> System {
    let idle = request("idle", "llm", 0, 100, 900) + "best_effort = true\n";
    let chat = request("chat", "llm", chat_at_ms, 100, 50);
    let toml = llm(memory, &(idle + &chat)).replace("duration_s = 3", "duration_s = 20");
    system(&toml.replace("kind = \"gpu\"", "kind = \"gpu\"\npreemption = \"segment\""))
}

#[test]
fn under_every_policy_idle_time_work_gives_up_its_cache() {
    // Both caches do not fit: reserved whole, 1000 and 150 tokens of 1.1 GB; by blocks, 950 and 110 of 1.02 when the chat begins.
    for (memory, at) in [("capacity_gb = 1.1", 1000), ("capacity_gb = 1.02\nkv_block_tokens = 10", 8500)] {
        let system = idle_answer_and_chat(memory, at);
        for info in onbeat_policy::all() {
            let events = run(&system, onbeat_policy::make(info.name, &system).unwrap(), 1);
            // It waits for the step that runs, 10 ms at most, prefills and makes 49 steps.
            let done = done_at(&system, &events, "chat")[0] - f64::from(at);
            assert!((500.0..=511.0).contains(&done), "{}: {done}", info.name);
            let idle = done_at(&system, &events, "idle");
            // What was lost is prefilled again.
            assert!(idle[0] < 9700.0, "{}: {idle:?}", info.name);
            assert_eq!(times(&events, |what| matches!(what, What::EvictCache { .. })).len(), 1, "{}", info.name);
        }
    }
}

#[test]
fn idle_time_work_stops_where_another_stage_is_short_of_memory() {
    // The NPU could go on with the idle answer for nine seconds, but the chat on the GPU needs the memory.
    let idle = request("idle", "thinker", 0, 100, 900) + "best_effort = true\n";
    let thinker = r#"
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        preemption = "segment"
        [model.thinker]
        shape = "autoregressive"
        kv_kb_per_token = 1000
        [[cost]]
        model = "thinker"
        processor = "npu"
        prefill_ms = [[100, 10]]
        decode_ms = [[0, 10]]
        [model.llm]
    "#;
    let sources = idle + &request("chat", "llm", 1000, 100, 50);
    let toml =
        llm("capacity_gb = 1.1", &sources).replace("[model.llm]", thinker).replace("duration_s = 3", "duration_s = 20");
    let system = system(&toml);
    for info in onbeat_policy::all() {
        let events = run(&system, onbeat_policy::make(info.name, &system).unwrap(), 1);
        assert_eq!(done_at(&system, &events, "chat"), [1500.0], "{}", info.name);
        assert_eq!(done_at(&system, &events, "idle").len(), 1, "{}", info.name);
    }
}

#[test]
fn weights_of_idle_time_work_that_has_begun_make_room() {
    // The dream has begun when the frame comes, and its weights go. It does not come back, since it displaces nobody's weights.
    let system = system(
        r#"
        name = "weights"
        duration_s = 1
        preloaded = false
        stream = [
            { name = "frame", model = "frame", period_ms = 1000, phase_ms = 215, count = 1 },
            { name = "dream", model = "dream", period_ms = 1000, best_effort = true },
        ]
        [platform]
        name = "p"
        memory = { capacity_gb = 1.5, load_gbps = 10 }
        processor = [{ name = "npu", kind = "npu", preemption = "segment" }]
        [model]
        frame = { weights_mb = 1000 }
        dream = { weights_mb = 1000 }
        [[cost]]
        model = "frame"
        processor = "npu"
        latency_ms = 10
        [[cost]]
        model = "dream"
        processor = "npu"
        latency_ms = 200
        segments = 10
        "#,
    );
    for info in onbeat_policy::all() {
        let events = run(&system, onbeat_policy::make(info.name, &system).unwrap(), 1);
        // Loading until 100, six segments until 220; 100 of loading and 10 of work.
        let done = [jobs_of(&system, &events, "frame"), jobs_of(&system, &events, "dream")];
        assert_eq!(done, [[(215.0, Some(330.0))], [(0.0, None)]], "{}", info.name);
    }
}

/// A system with little memory in which nothing asks for more than there is.
#[derive(Clone, Debug)]
struct Tight {
    /// How each of the three processors preempts: never, or at segments.
    preemption: [u8; 3],
    slots: u32,
    units: bool,
    /// Memory beyond what the largest stage needs [MB].
    spare: u32,
    /// Tokens of a block, if caches grow.
    block: Option<u32>,
    /// Slower memory [MB].
    swap: Option<u32>,
    far: bool,
    draft: bool,
    attention: bool,
    split: bool,
    batch: bool,
    variants: bool,
    pieces: bool,
    conversation: bool,
    tool: bool,
    adapter: bool,
    idle: bool,
    preloaded: bool,
    /// Stages on the CPU, too.
    cpu: bool,
}

impl Tight {
    /// Weights of the language model, its adapter and its draft model, all caches of 416 tokens, and activations [MB].
    fn capacity_mb(&self) -> f64 {
        let cache = if self.draft { 0.22 } else { 0.2 };
        let adapter = if self.adapter { 15.0 } else { 0.0 };
        let draft = if self.draft { 20.0 } else { 0.0 };
        100.0 + adapter + draft + 416.0 * cache + 10.0 + f64::from(self.spare)
    }

    fn toml(&self) -> String {
        let mut toml = "name = \"tight\"\nduration_s = 60\n[platform]\nname = \"p\"\n[platform.memory]\n\
                        bandwidth_gbps = 50\nhandover_us = 20\nload_gbps = 10\n"
            .to_owned();
        let mut put = |text: String| writeln!(toml, "{text}").expect("writing to a string succeeds");
        let when = |is: bool, text: &str| if is { text.to_owned() } else { String::new() };
        put(format!("capacity_gb = {}", self.capacity_mb() / 1e3));
        put(self.block.map_or(String::new(), |block| format!("kv_block_tokens = {block}")));
        put(self
            .swap
            .map_or(String::new(), |mb| format!("swap_gbps = 5\nswap_us = 20\nswap_gb = {}", f64::from(mb) / 1e3)));
        for (i, name) in ["cpu", "gpu", "npu"].iter().enumerate() {
            let preemption = ["never", "segment"][usize::from(self.preemption[i])];
            put(format!(
                "[[platform.processor]]\nname = \"{name}\"\nkind = \"{name}\"\npreemption = \"{preemption}\"\n\
                 bandwidth_gbps = 40\nswitch_us = 30"
            ));
            put(when(i == 1, &format!("slots = {}", self.slots)));
            put(when(i == 2 && self.units, "units = 4\nrepartition_us = 100"));
        }
        put("[model.eye]\nweights_mb = 60".to_owned());
        put(when(self.split, "split = { points = 10 }"));
        put(when(self.variants, "quality = { metric = \"m\", value = 2, higher_is_better = true }"));
        put(when(
            self.variants,
            "[model.eye.variant.light]\nweights_mb = 14\nquality = { metric = \"m\", value = 1, higher_is_better = true }",
        ));
        put("[model.llm]\nshape = \"autoregressive\"\nweights_mb = 100\nkv_kb_per_token = 200".to_owned());
        put(when(self.far, "kv_offload = { layers = 10, share = 0.2 }"));
        put(when(self.attention && !self.far, "attention = { points = 4 }"));
        put("[model.small]\nshape = \"autoregressive\"\nweights_mb = 20\nkv_kb_per_token = 20".to_owned());
        put("[model.paint]\nshape = \"iterative\"\nsteps = 4\nweights_mb = 90".to_owned());
        put("[model.dream]\nweights_mb = 80".to_owned());
        put(when(self.adapter, "[adapter.tone]\nmodel = \"llm\"\nweights_mb = 15"));
        for (i, p) in ["cpu", "gpu", "npu"].iter().enumerate().filter(|&(i, _)| self.cpu || i > 0) {
            let factor = f64::from([4, 2, 1][i]);
            let cost =
                |model: &str, rest: String| format!("[[cost]]\nmodel = \"{model}\"\nprocessor = \"{p}\"\n{rest}");
            put(cost("eye", format!("latency_ms = {}\nsegments = 3\nbytes_mb = 20\nmemory_mb = 10", 5.0 * factor)));
            if self.variants {
                let units = when(i == 2 && self.units, "units = 2\n");
                put(cost("eye", format!("variant = \"light\"\n{units}latency_ms = {}", 2.0 * factor)));
            }
            if i == 2 && self.units {
                put(cost("eye", "units = 2\nlatency_ms = 8\nsegments = 3\nbytes_mb = 20".to_owned()));
                put(cost("dream", "units = 1\nlatency_ms = 60\nsegments = 5".to_owned()));
            }
            put(cost("dream", format!("latency_ms = {}\nsegments = 5", 20.0 * factor)));
            let batch = when(self.batch, "\nbatch_factor = [[1, 1.0], [4, 1.5]]");
            put(cost("paint", format!("step_ms = {}\nbytes_mb = 10{batch}\nmemory_mb = 10", 3.0 * factor)));
            let pieces =
                when(self.pieces, "\nprefill_chunk = 32\nchunk_efficiency = [[1, 0.5], [32, 1.0]]\nmixed_steps = true");
            let (verify, decode) =
                ("\nverify_factor = [[1, 1.0], [16, 1.2]]", format!("decode_ms = [[0, {}]]", 3.0 * factor));
            if i > 0 || !self.attention {
                put(cost("llm", format!("prefill_ms = [[100, {}]]\n{decode}{batch}{pieces}{verify}", 15.0 * factor)));
            }
            put(cost("small", format!("prefill_ms = [[100, {}]]\ndecode_ms = [[0, {}]]", 2.0 * factor, 0.5 * factor)));
        }
        let any = when(self.variants, ", variants = \"any\"");
        put("[[stream]]\nname = \"camera\"\nchain = \"see\"\nperiod_ms = 40\ncount = 4\ndeadline_ms = 40".to_owned());
        put("[[stream]]\nname = \"canvas\"\nmodel = \"paint\"\nperiod_ms = 90\nphase_ms = 7\ncount = 2".to_owned());
        let lengths = "prompt = { kind = \"uniform\", low = 20, high = 150 }\n\
                       output = { kind = \"uniform\", low = 1, high = 50 }\nttft_ms = 200\ntpot_ms = 8";
        for (name, period, priority) in [("chat", 0.06, 0), ("guest", 0.1, 2)] {
            put(format!(
                "[[session]]\nname = \"{name}\"\nchain = \"{name}\"\npriority = {priority}\ncount = 3\n\
                 arrival = {{ process = \"periodic\", period_s = {period} }}\n{lengths}"
            ));
            put(when(self.conversation && name == "chat", "conversation = 350"));
        }
        if self.idle {
            put("[[stream]]\nname = \"rest\"\nmodel = \"dream\"\nperiod_ms = 100\ncount = 2\nbest_effort = true"
                .to_owned());
            put("[[session]]\nname = \"notes\"\nmodel = \"llm\"\ncount = 2\nbest_effort = true\n\
                 arrival = { process = \"periodic\", period_s = 0.05 }\nprompt = 100\noutput = 200"
                .to_owned());
        }
        let draft = when(self.draft, ", draft = { model = \"small\", tokens = 4, acceptance = 0.7 }");
        let adapter = when(self.adapter, ", adapter = \"tone\"");
        let tool = "{ name = \"tool\", tool_ms = { kind = \"constant\", value = 20 }, after = [{ stage = \"plan\" }] }";
        put(format!("[chain.see]\nstage = [{{ name = \"eye\", model = \"eye\"{any} }}]"));
        put(format!("[chain.guest]\nstage = [{{ name = \"answer\", model = \"llm\"{adapter} }}]"));
        put(format!(
            "[chain.chat]\nstage = [{{ name = \"plan\", model = \"llm\"{draft} }}{}]",
            when(
                self.tool,
                &format!(", {tool}, {{ name = \"say\", model = \"llm\"{draft}, after = [{{ stage = \"tool\" }}] }}")
            )
        ));
        if self.preloaded { toml } else { toml.replacen("duration_s = 60", "duration_s = 60\npreloaded = false", 1) }
    }
}

prop_compose! {
    fn tight()(
        // Not at any time: jobs in turns that are shorter than loading what the other has displaced get nowhere, whoever gives way.
        preemption in [0..2_u8, 0..2_u8, 0..2_u8],
        (slots, units, cpu) in (1..=2_u32, any::<bool>(), any::<bool>()),
        spare in prop_oneof![Just(0_u32), 0..60_u32, 60..400_u32],
        block in prop::option::weighted(0.7, prop_oneof![Just(1_u32), Just(16_u32)]),
        swap in prop::option::of(prop_oneof![0..60_u32, Just(1000_u32)]),
        (far, draft, attention, split, batch) in any::<(bool, bool, bool, bool, bool)>(),
        (variants, pieces, conversation, tool) in any::<(bool, bool, bool, bool)>(),
        (adapter, idle, preloaded) in any::<(bool, bool, bool)>(),
    ) -> Tight {
        let swap = swap.map(|mb| mb.max(1));
        let far = far && !units && swap.is_some();
        // Not both: `p-edf` and `speculative` can leave the calls of a conversation before and after a tool waiting for each other.
        let tool = tool && !conversation;
        Tight { preemption, slots, units, spare, block, swap, far, draft, attention, split, batch, variants, pieces, conversation,
                tool, adapter, idle, preloaded, cpu }
    }
}

proptest! {
    // Each case runs all policies; `PROPTEST_CASES` asks for more of them.
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever a system combines, as long as each stage by itself has enough memory: every job of a source that is not best-effort ends –
    /// is done, or given up by a policy that gives jobs up.
    #[test]
    fn under_every_policy_every_job_ends(tight in tight(), seed in 0..1000_u64) {
        let system = system(&tight.toml());
        for info in onbeat_policy::all() {
            let policy = onbeat_policy::make(info.name, &system).unwrap();
            let sinks = (Vec::new(), Checker::new(&system));
            let (_, (events, checker)) =
                simulate(&system, policy, info.name, seed, sinks).unwrap_or_else(|error| panic!("{}: {error}", info.name));
            let wrong = checker.finish();
            prop_assert!(wrong.is_empty(), "{}: {wrong:#?}", info.name);
            let waiting = unfinished(&system, &events);
            prop_assert!(waiting.is_empty(), "{}: {waiting:?}", info.name);
        }
    }
}

/// Sources, best-effort ones apart, of jobs that have not ended.
fn unfinished<'s>(system: &'s System, events: &[Event]) -> Vec<&'s str> {
    let mut jobs = BTreeMap::new();
    for event in events {
        match event.what {
            What::Release { job, source, .. } if !system.sources[source].best_effort => {
                jobs.insert(job, system.sources[source].name.as_str());
            }
            What::JobDone { job } | What::Drop { job, .. } => {
                jobs.remove(&job);
            }
            _ => {}
        }
    }
    jobs.into_values().collect()
}
