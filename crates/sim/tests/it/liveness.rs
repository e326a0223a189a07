//! Nobody waits for ever: memory that idle-time work holds is given up.

use onbeat_core::event::What;
use onbeat_core::system::System;

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
