//! Several virtual devices on one stage, with real threads: what is recorded replays.

use onbeat_core::cost::Phase;
use onbeat_core::event::What;
use onbeat_core::id::{ProcessorId, ProcessorSet};
use onbeat_core::policy::{Actions, View};

use crate::support::{Script, Setup, scenario};

const A: ProcessorId = ProcessorId(0);
const B: ProcessorId = ProcessorId(1);

/// Everything on both processors: networks divided, answers drafted two cycles at a time.
fn together(view: &View<'_>, actions: &mut Actions) {
    let Some(&stage) = view.ready().first() else { return };
    if view.free_slots(A) == 0 || view.free_slots(B) == 0 {
        return;
    }
    match view.stage(stage).kind {
        Phase::Decode => actions.speculate(stage, A, B, 3, 2),
        Phase::Prefill => actions.start(stage, A),
        _ => actions.split(stage, A, ProcessorSet::of(B), None),
    }
}

#[test]
fn virtual_devices_divide_and_draft() {
    let models = [
        ("eye", "split = { points = 2 }", "latency_ms = 4\nsegments = 2"),
        (
            "large",
            "shape = \"autoregressive\"",
            "prefill_ms = [[10, 2]]\ndecode_ms = [[0, 3]]\nverify_factor = [[1, 1], [9, 1]]",
        ),
        ("small", "shape = \"autoregressive\"", "prefill_ms = [[10, 1]]\ndecode_ms = [[0, 0.5]]"),
    ];
    let rest = "[[stream]]\nname = \"camera\"\nmodel = \"eye\"\nperiod_ms = 40\n\
                [[session]]\nname = \"chat\"\nchain = \"chat\"\narrival = { process = \"periodic\", period_s = 0.2 }\n\
                prompt = 10\noutput = 20\n\
                [chain.chat]\nstage = [{ name = \"answer\", model = \"large\", draft = { model = \"small\", tokens = 3, acceptance = 0.7 } }]\n";
    let toml = scenario(0.6, &["a:virtual", "b:virtual"], &models, rest);
    let scripts = models.map(|(name, _, _)| (name, Script::default()));
    let mut setup = Setup::new(toml, &scripts);
    setup.rule = together;
    let ran = setup.run();
    let by_both = |phase: Phase| {
        ran.count(|what| matches!(what, What::Start { phase: p, over, .. } if *p == phase && over.contains(B)))
    };
    assert!(by_both(Phase::Forward) > 0 && by_both(Phase::Decode) > 1, "{:?}", ran.events);
    assert!(ran.done() > 0 && ran.failed() == 0);
}
