//! Steps of iterative models that several jobs share: streaming denoising.

use onbeat_core::event::{Event, What};
use onbeat_core::policy::{Actions, View};

use crate::support::{done_at, jobs_of, run_script};

/// A model of four steps, and frames for it.
fn scenario(cost: &str, stream: &str, processor: &str) -> String {
    format!(
        r#"
        name = "frames"
        duration_s = 10
        [platform]
        name = "p"
        [platform.memory]
        [[platform.processor]]
        name = "gpu"
        kind = "gpu"
        {processor}
        [model.diffusion]
        shape = "iterative"
        steps = 4
        weights_mb = 40
        [[cost]]
        model = "diffusion"
        processor = "gpu"
        {cost}
        [[stream]]
        name = "frames"
        model = "diffusion"
        {stream}
        "#
    )
}

/// Starts the first stage on an idle processor and lets others join, one per decision.
fn batching(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    let free = view.free_slots(p) > 0;
    if let Some(&stage) = view.ready().iter().find(|&&stage| free || view.can_join(stage, p)) {
        actions.start(stage, p);
    }
}

/// Starts one stage and lets all others join it at once.
fn together(view: &View<'_>, actions: &mut Actions) {
    let p = view.processors().next().unwrap();
    for &stage in view.ready().iter().filter(|_| view.free_slots(p) > 0) {
        actions.start(stage, p);
    }
}

#[test]
fn a_frame_joins_whatever_step_the_others_are_at() {
    let cost = "step_ms = 10\nbatch_factor = [[1, 1], [2, 1.5], [3, 2]]";
    let (system, events) = run_script(&scenario(cost, "period_ms = 30\ncount = 3", ""), batching);
    // Alone to 30; the last step with the second frame, 15 ms; that one is alone to 65, and shares its last step; the third is alone
    // from 80 on.
    assert_eq!(done_at(&system, &events, "frames"), [45.0, 80.0, 110.0]);
    let alone = "step_ms = 10";
    let (system, events) = run_script(&scenario(alone, "period_ms = 30\ncount = 3", ""), batching);
    assert_eq!(done_at(&system, &events, "frames"), [40.0, 80.0, 120.0], "without figures nothing is shared");
}

/// StreamDiffusion (arXiv 2312.12491) publishes, for an RTX 4090, 106.16 frames per second of text to image with one step, and 38.023
/// with four, each in a batch with the others: steps of 9.42 ms, and of 26.30 ms with four frames in them. The networks are of one size
/// (SD-Turbo; Stable Diffusion 1.5 with LCM-LoRA), decoders included. One after the other, four steps make 26.5 frames per second; the
/// paper's abstract says that batches are about 1.5 times as fast.
#[test]
fn stream_batches_are_as_much_faster_as_streamdiffusion_publishes() {
    let (step, four) = (1000.0 / 106.16, 1000.0 / 38.023);
    let rate = |cost: &str| {
        let text = scenario(cost, "period_ms = 5\nqueue = 8\ndeadline_ms = 10000", "");
        let (system, events) = run_script(&text, batching);
        let jobs = jobs_of(&system, &events, "frames");
        jobs.iter().filter(|(_, done)| done.is_some()).count() as f64 / 10.0
    };
    let batched = rate(&format!("step_ms = {step}\nbatch_factor = [[1, 1], [4, {}]]", four / step));
    let one_by_one = rate(&format!("step_ms = {step}"));
    // Four frames are under way at the end.
    assert!((batched - 38.023).abs() < 0.5, "{batched}");
    assert!((one_by_one - 26.54).abs() < 0.2, "{one_by_one}");
    assert!((1.4..1.5).contains(&(batched / one_by_one)), "{}", batched / one_by_one);
}

#[test]
fn a_batch_moves_the_weights_once_and_draws_power_for_as_long_as_it_takes() {
    let sums = |processor: &str| {
        let cost = "step_ms = 10\nbatch_factor = [[1, 1], [2, 1.5]]\nbytes_mb = 100\nenergy_mj = 10";
        let two = "period_ms = 1000\ncount = 1\n[[stream]]\nname = \"others\"\nmodel = \"diffusion\"\nperiod_ms = 1000\ncount = 1";
        let (_, events) = run_script(&scenario(cost, two, processor), together);
        let of = |event: &Event| match event.what {
            What::Stop { bytes, energy_mj, .. } => Some((bytes.as_f64() / 1e6, energy_mj.unwrap())),
            _ => None,
        };
        events.iter().filter_map(of).fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    // Of 100 MB per step and frame 40 are weights, which are moved once for both. Four steps take 15 ms and draw as much as 10 mJ in
    // 10 ms.
    assert_eq!(sums(""), (4.0 * 160.0, 4.0 * 15.0));
    let (bytes, energy) = sums("leakage_w = 0.5\nidle_w = 0.1\nactive_w = 3");
    assert_eq!(bytes, 640.0);
    assert!((energy - 60.0).abs() < 1e-9, "{energy}");
}
