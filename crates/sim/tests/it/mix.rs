//! Random systems that combine whatever can be combined: slots, units, drafts, divided models, attention, caches by blocks and in slower
//! memory, variants, batches, idle-time work. The simulator's tests use them, and the runtime's.

use std::fmt::Write;

use proptest::prelude::*;

/// What a random system is made of.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    /// How each of the three processors preempts: never, at segments, at any time.
    preemption: [u8; 3],
    /// Slots of the second processor.
    slots: u32,
    /// Whether the third one can be divided.
    units: bool,
    /// Memory [MB]; 0: as much as anybody wants.
    memory: u32,
    blocks: bool,
    swap: bool,
    far: bool,
    draft: bool,
    attention: bool,
    split: bool,
    batch: bool,
    variants: bool,
    idle: bool,
    pieces: bool,
    conversations: bool,
}

impl Mix {
    /// The scenario.
    pub(crate) fn toml(&self) -> String {
        let mut toml = "name = \"mix\"\nduration_s = 1\n[platform]\nname = \"p\"\n[platform.memory]\n\
                        bandwidth_gbps = 50\nhandover_us = 20\n"
            .to_owned();
        let mut put = |text: String| writeln!(toml, "{text}").expect("writing to a string succeeds");
        let when = |is: bool, text: &str| if is { text.to_owned() } else { String::new() };
        if self.memory > 0 {
            put(format!("capacity_gb = {}", f64::from(self.memory) / 1e3));
        }
        put(when(self.blocks, "kv_block_tokens = 16"));
        put(when(self.swap || self.far, "swap_gbps = 5"));
        for (i, name) in ["cpu", "gpu", "npu"].iter().enumerate() {
            let preemption = ["never", "segment", "anytime"][usize::from(self.preemption[i])];
            put(format!(
                "[[platform.processor]]\nname = \"{name}\"\nkind = \"{name}\"\npreemption = \"{preemption}\"\n\
                 bandwidth_gbps = 40\nswitch_us = 30"
            ));
            put(when(i == 1, &format!("slots = {}", self.slots)));
            put(when(i == 2 && self.units, "units = 4\nrepartition_us = 100"));
        }
        put("[model.eye]\nweights_mb = 10".to_owned());
        put(when(self.split, "split = { points = 10 }"));
        put(when(self.variants, "quality = { metric = \"m\", value = 2, higher_is_better = true }"));
        put(when(
            self.variants,
            "[model.eye.variant.light]\nweights_mb = 4\nquality = { metric = \"m\", value = 1, higher_is_better = true }",
        ));
        put("[model.llm]\nshape = \"autoregressive\"\nweights_mb = 100\nkv_kb_per_token = 200".to_owned());
        put(when(self.far, "kv_offload = { layers = 10, share = 0.2 }"));
        put(when(self.attention && !self.far, "attention = { points = 4 }"));
        put("[model.small]\nshape = \"autoregressive\"\nweights_mb = 20\nkv_kb_per_token = 20".to_owned());
        put("[model.paint]\nshape = \"iterative\"\nsteps = 4\nweights_mb = 40".to_owned());
        put("[model.dream]\nweights_mb = 30".to_owned());
        for (i, p) in ["cpu", "gpu", "npu"].iter().enumerate() {
            let factor = f64::from([4, 2, 1][i]);
            let cost =
                |model: &str, rest: String| format!("[[cost]]\nmodel = \"{model}\"\nprocessor = \"{p}\"\n{rest}");
            put(cost("eye", format!("latency_ms = {}\nsegments = 3\nbytes_mb = 20", 5.0 * factor)));
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
            put(cost("paint", format!("step_ms = {}\nbytes_mb = 10{batch}", 3.0 * factor)));
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
        put("[[stream]]\nname = \"camera\"\nchain = \"see\"\nfps = 20\ndeadline_ms = 40\ndrop = \"hopeless\""
            .to_owned());
        put("[[stream]]\nname = \"door\"\nchain = \"see\"\narrival = { process = \"poisson\", rate_per_s = 10 }\n\
             deadline_ms = 60"
            .to_owned());
        put("[[stream]]\nname = \"canvas\"\nmodel = \"paint\"\nfps = 15".to_owned());
        put("[[session]]\nname = \"chat\"\nchain = \"talk\"\narrival = { process = \"poisson\", rate_per_s = 5 }\n\
             prompt = { kind = \"uniform\", low = 20, high = 200 }\noutput = { kind = \"uniform\", low = 1, high = 30 }\n\
             ttft_ms = 200\ntpot_ms = 8"
            .to_owned());
        put(when(self.conversations, "conversation = 3"));
        put(when(self.idle, "[[stream]]\nname = \"rest\"\nmodel = \"dream\"\nperiod_ms = 100\nbest_effort = true"));
        let draft = when(self.draft, ", draft = { model = \"small\", tokens = 4, acceptance = 0.7 }");
        put(format!("[chain.see]\nstage = [{{ name = \"eye\", model = \"eye\"{any} }}]"));
        put(format!("[chain.talk]\nstage = [{{ name = \"answer\", model = \"llm\"{draft} }}]"));
        toml
    }
}

prop_compose! {
    pub(crate) fn mixes()(
        preemption in [0..3_u8, 0..3_u8, 0..3_u8],
        (slots, units) in (1..=2_u32, any::<bool>()),
        memory in prop_oneof![Just(0_u32), 260..500_u32],
        (blocks, swap, far) in any::<(bool, bool, bool)>(),
        (draft, attention, split, batch) in any::<(bool, bool, bool, bool)>(),
        (variants, idle, pieces, conversations) in any::<(bool, bool, bool, bool)>(),
    ) -> Mix {
        let far = far && !units;
        Mix { preemption, slots, units, memory, blocks, swap, far, draft, attention, split, batch, variants, idle, pieces,
              conversations }
    }
}
