//! Several processors on one stage, of which one is divided into units: it is taken as a whole, and cut anew if need be.

use onbeat_core::cost::Phase;
use onbeat_core::event::{Event, What};
use onbeat_core::id::{ProcessorId, ProcessorSet};
use onbeat_core::policy::{Actions, View};

use crate::support::{done_at, run_script};

const GPU: ProcessorId = ProcessorId(0);
const NPU: ProcessorId = ProcessorId(1);

/// A GPU, and an NPU of four units: 1 ms to cut it anew, 0.5 ms for another model. `small` runs on one unit for 4 ms.
fn scenario(more: &str) -> String {
    format!(
        r#"
        name = "joint units"
        duration_s = 1
        [platform]
        name = "p"
        [platform.memory]
        bandwidth_gbps = 100
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        bandwidth_gbps = 50
        [[platform.processor]]
        name = "npu"
        kind = "npu"
        bandwidth_gbps = 50
        units = 4
        repartition_us = 1000
        switch_us = 500
        [model.small]
        [[cost]]
        model = "small"
        processor = "npu"
        units = 1
        latency_ms = 4
        {more}
        "#
    )
}

fn smalls(at_ms: &[u32]) -> String {
    let one = |at: &u32| {
        format!("[[stream]]\nname = \"small{at}\"\nmodel = \"small\"\nperiod_ms = 1000\nphase_ms = {at}\ncount = 1\n")
    };
    at_ms.iter().map(one).collect()
}

/// Times of preparation of a phase on several processors, or of `small`, in order [ms].
fn setups(events: &[Event], together: bool) -> Vec<f64> {
    let of = |event: &Event| match event.what {
        What::Start { setup, over, units, .. } if (together && !over.is_empty()) || (!together && units > 0) => {
            Some(setup.as_ms())
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn a_divided_processor_helps_as_a_whole() {
    fn script(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            if view.source(stage).name == "frames" {
                actions.split(stage, GPU, ProcessorSet::of(NPU), None);
            } else {
                actions.start_on_units(stage, NPU, 1, None);
            }
        }
    }
    // The frame is stated for two of the units, which is what it takes, but it takes all four of them.
    let frames = r#"
        [model.frame]
        split = { points = 1 }
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 6
        [[cost]]
        model = "frame"
        processor = "npu"
        units = 2
        latency_ms = 3
        [[stream]]
        name = "frames"
        model = "frame"
        period_ms = 20
        count = 2
    "#;
    let (system, events) = run_script(&scenario(&(frames.to_owned() + &smalls(&[10]))), script);
    // Nothing is cut for the first. `small` cuts a part, for another model than before; the second frame cuts all four units again.
    assert_eq!(setups(&events, true), [0.0, 1.5]);
    assert_eq!(setups(&events, false), [1.5]);
    assert_eq!(done_at(&system, &events, "frames"), [2.0, 23.5]);
}

#[test]
fn a_divided_processor_drafts_as_a_whole() {
    fn script(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            if view.source(stage).name != "chat" {
                actions.start_on_units(stage, NPU, 1, None);
            } else if view.stage(stage).kind == Phase::Prefill {
                actions.start(stage, GPU);
            } else {
                actions.speculate(stage, GPU, NPU, 4, None);
            }
        }
    }
    let chat = r#"
        [model.large]
        shape = "autoregressive"
        [model.tiny]
        shape = "autoregressive"
        [[cost]]
        model = "large"
        processor = "gpu"
        prefill_ms = [[100, 10]]
        decode_ms = [[0, 50]]
        verify_factor = [[1, 1.0], [16, 1.0]]
        [[cost]]
        model = "tiny"
        processor = "npu"
        prefill_ms = [[101, 2]]
        decode_ms = [[0, 5]]
        [[session]]
        name = "chat"
        chain = "chat"
        arrival = { process = "periodic", period_s = 100 }
        prompt = 100
        output = 6
        [chain.chat]
        stage = [{ name = "answer", model = "large", draft = { model = "tiny", tokens = 4, acceptance = 1 } }]
    "#;
    let (_, events) = run_script(&scenario(&(smalls(&[0]) + chat)), script);
    // It reads the context, cuts the NPU anew, and is another model than the one that ran there.
    assert_eq!(setups(&events, true), [2.0 + 1.0 + 0.5]);
}

#[test]
fn reading_a_part_of_the_cache_is_no_context_switch() {
    fn script(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            if view.source(stage).name != "chat" {
                actions.start_on_units(stage, NPU, 1, None);
            } else if view.stage(stage).kind == Phase::Prefill {
                actions.start(stage, GPU);
            } else {
                actions.start_together(
                    stage,
                    GPU,
                    onbeat_core::joint::Together::Attention { helpers: ProcessorSet::of(NPU) },
                );
            }
        }
    }
    let chat = r#"
        [model.llm]
        shape = "autoregressive"
        kv_kb_per_token = 1000
        attention = { points = 1 }
        [[cost]]
        model = "llm"
        processor = "gpu"
        prefill_ms = [[100, 10]]
        decode_ms = [[0, 10]]
        [[session]]
        name = "chat"
        model = "llm"
        arrival = { process = "periodic", period_s = 100 }
        prompt = 100
        output = 3
    "#;
    let (_, events) = run_script(&scenario(&(smalls(&[0, 100]) + chat)), script);
    // One unit is cut off twice, and all four in between. `small` is what ran there last, both times.
    assert_eq!(setups(&events, true), [1.0]);
    assert_eq!(setups(&events, false), [1.0, 1.0]);
}

#[test]
fn a_stage_that_ran_on_one_unit_is_divided_by_the_cost_of_all_of_them() {
    fn script(view: &View<'_>, actions: &mut Actions) {
        for &stage in view.ready() {
            if view.stage(stage).position == 0.0 {
                actions.start_on_units(stage, NPU, 1, Some(onbeat_core::policy::Limit::Segments(1)));
            } else {
                actions.split(stage, NPU, ProcessorSet::of(GPU), None);
            }
        }
    }
    let frames = r#"
        [model.frame]
        split = { points = 1 }
        [[cost]]
        model = "frame"
        processor = "gpu"
        latency_ms = 6
        segments = 2
        [[cost]]
        model = "frame"
        processor = "npu"
        units = 1
        latency_ms = 6
        segments = 2
        [[cost]]
        model = "frame"
        processor = "npu"
        units = 4
        latency_ms = 3
        segments = 2
        [[stream]]
        name = "frames"
        model = "frame"
        period_ms = 100
        count = 1
    "#;
    let (system, events) = run_script(&scenario(frames), script);
    // One unit is cut off, and its segment takes 3 ms; all are cut anew, and 1.5 and 3 ms make 1.
    assert_eq!(done_at(&system, &events, "frames"), [1.0 + 3.0 + 1.0 + 1.0]);
}
