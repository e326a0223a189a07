//! A file without mistakes, and what can be wrong in it.

/// A scenario without mistakes: a camera, a chain with a language model, a session.
pub(crate) const GOOD: &str = r#"name = "good"
duration_s = 10
warm_up_s = 1

[[phase]]
name = "call"
start_s = 0
end_s = 5

[[stream]]
name = "camera"
model = "detector"
fps = 30
jitter_ms = { kind = "uniform", low = 0, high = 2 }
during = ["call"]

[[stream]]
name = "voice"
chain = "answer"
period_ms = 500
priority = 3

[[session]]
name = "chat"
model = "writer"
arrival = { process = "poisson", rate_per_s = 0.5 }
prompt = { kind = "lognormal", median = 100, sigma = 0.5, min = 16, max = 1000 }
output = 50
ttft_ms = 800

[chain.answer]
deadline_ms = 2000
stage = [
    { name = "hear", model = "detector" },
    { name = "think", model = "writer", prompt = 64, output = 32, after = [{ stage = "hear", probability = 0.5 }] },
    { name = "paint", model = "painter", steps = 4, after = [{ stage = "think" }] },
    { name = "speak", model = "speaker", size = 40, after = [{ stage = "think", per_tokens = 16 }] },
]

[model]
detector = { weights_mb = 5, variant.small = { weights_mb = 1 } }
writer = { shape = "autoregressive", weights_mb = 500, kv_kb_per_token = 30 }
painter = { shape = "iterative", weights_mb = 900 }
speaker = {}

[[cost]]
model = "detector"
processor = "npu"
latency_ms = 4
segments = 2

[[cost]]
model = "writer"
processor = "gpu"
prefill_ms = [[16, 20], [1024, 500]]
decode_ms = [[0, 10], [2048, 30]]

[[cost]]
model = "painter"
processor = "gpu"
step_ms = 50

[[cost]]
model = "speaker"
processor = "npu"
by_size_ms = [[10, 5], [100, 40]]

[platform]
name = "toy"
memory = { capacity_gb = 8, bandwidth_gbps = 60 }
processor = [{ name = "npu", kind = "npu" }, { name = "gpu", kind = "gpu", bandwidth_gbps = 50 }]

[source.guess]
kind = "analytical"
formula = "made up for the test"
"#;

/// What is done to the good file: `old` becomes `new`.
pub(crate) const MISTAKES: &[(&str, &str, &str)] = &[
    ("not TOML", "fps = 30", "fps = = 30"),
    ("the same key twice", "fps = 30", "fps = 30\nfps = 60"),
    ("unknown field", "fps = 30", "fsp = 30"),
    ("unknown field deep inside", "low = 0", "lo = 0"),
    ("missing field", "duration_s = 10\n", ""),
    ("wrong type", "fps = 30", "fps = \"fast\""),
    ("negative count", "segments = 2", "segments = -2"),
    ("unknown choice", "period_ms = 500", "period_ms = 500\ndrop = \"never\""),
    ("several at once", "fps = 30", "fsp = 30\ndrop = \"never\"\npriority = \"high\""),
    ("a table where a list should be", "[[phase]]", "[phase]"),
    ("not a number", "fps = 30", "fps = nan"),
    (
        "drafts of a model without tokens",
        "name = \"think\", model = \"writer\"",
        "name = \"think\", model = \"writer\", draft = { model = \"detector\", tokens = 4, acceptance = 0.5 }",
    ),
    (
        "drafts that are too long and too good",
        "name = \"think\", model = \"writer\"",
        "name = \"think\", model = \"writer\", draft = { model = \"writer\", tokens = 100, acceptance = 1.5 }",
    ),
    (
        "drafts that nothing verifies",
        "name = \"think\", model = \"writer\"",
        "name = \"think\", model = \"writer\", draft = { model = \"writer\", tokens = 4, acceptance = 0.5 }",
    ),
    ("reuse that saves nothing", "step_ms = 50", "step_ms = 50\nreuse = { every = 1, step_ms = 60 }"),
    ("divided nowhere", "weights_mb = 900 }", "weights_mb = 900, split = { points = 0 } }"),
    ("exits that fall", "weights_mb = 5,", "weights_mb = 5, exits = [[0.5, 0.5], [0.4, 0.2], [1, 0.3]],"),
    ("exits before the end", "weights_mb = 5,", "weights_mb = 5, exits = [[0.5, 0.5], [0.9, 0.5]],"),
    ("exits for some", "weights_mb = 1 }", "weights_mb = 1, exits = [[0.5, 0.3], [1, 0.3]] }"),
    ("an exit beyond the end", "weights_mb = 5,", "weights_mb = 5, exits = [[1.5, 0.5], [1, 1.5]],"),
    ("no exits", "weights_mb = 5,", "weights_mb = 5, exits = [],"),
    (
        "exits of answers that are divided",
        "weights_mb = 500,",
        "weights_mb = 500, split = { points = 2 }, exits = [[0.5, 0.5], [1, 0.5]],",
    ),
    (
        "exits per token of an image",
        "weights_mb = 5,",
        "weights_mb = 5, exits = [[0.5, 0.5], [1, 0.5]], exits_per = \"token\",",
    ),
    ("nothing per answer", "weights_mb = 500,", "weights_mb = 500, exits_per = \"answer\","),
    ("exits of a loop", "weights_mb = 900 }", "weights_mb = 900, exits = [[0.5, 0.5], [1, 0.5]] }"),
    ("content that there is not", "fps = 30", "fps = 30\ncontent = \"street\""),
    (
        "content that is not a whole",
        "[model]\n",
        "[content.street]\nclasses = [{ name = \"slow\", share = 0.5, scene_s = 2 }, { name = \"slow\", share = 0.4, scene_s = 0 }]\n\n[model]\n",
    ),
    ("content without classes", "[model]\n", "[content.street]\nclasses = []\n\n[model]\n"),
    (
        "work by content that nobody sees",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", model = \"detector\", work_by_content = { crowded = 2 } }",
    ),
    (
        "work of a loop by content, and too much",
        "name = \"paint\", model = \"painter\", steps = 4",
        "name = \"paint\", model = \"painter\", steps = 4, work_by_content = { crowded = 2000 }",
    ),
    (
        "content of which a part is missing",
        "[model]\n",
        "[content.street]\nclasses = [{ name = \"slow\", share = 0.5, scene_s = 2 }, { name = \"fast\", share = 0.4, scene_s = 1 }]\n\n[model]\n",
    ),
    (
        "work in a class that there is not",
        "[model]\n",
        "[content.street]\nclasses = [{ name = \"slow\", share = 1, scene_s = 2 }]\n\n[[stream]]\nname = \"watch\"\nchain = \"watch\"\nfps = 1\ncontent = \"street\"\n\n\
         [chain.watch]\nstage = [{ name = \"watch\", model = \"detector\", work_by_content = { slwo = 2 } }]\n\n[model]\n",
    ),
    (
        "quality by content that is no number",
        "weights_mb = 5,",
        "weights_mb = 5, quality = { metric = \"mAP\", value = 1, higher_is_better = true, by_content = { slow = nan } },",
    ),
    (
        "a streaming model that is divided",
        "speaker = {}",
        "speaker = { shape = \"streaming\", split = { points = 2 } }",
    ),
    ("infinite", "duration_s = 10", "duration_s = inf"),
    ("negative latency", "latency_ms = 4", "latency_ms = -4"),
    ("no period", "period_ms = 500", "period_ms = 0"),
    ("both rates", "fps = 30", "fps = 30\nperiod_ms = 33"),
    ("neither rate", "fps = 30\n", ""),
    ("warm-up too long", "warm_up_s = 1", "warm_up_s = 10"),
    ("years of simulation", "duration_s = 10", "duration_s = 1e9"),
    ("deadline of zero", "deadline_ms = 2000", "deadline_ms = 0"),
    ("phase that ends before it starts", "end_s = 5", "end_s = -5"),
    ("empty phase", "end_s = 5", "end_s = 0"),
    ("unknown phase", "during = [\"call\"]", "during = [\"cal\"]"),
    ("two sources of one name", "name = \"voice\"", "name = \"camera\""),
    ("two stages of one name", "name = \"speak\"", "name = \"paint\""),
    ("unknown chain", "chain = \"answer\"", "chain = \"answers\""),
    ("chain and model", "chain = \"answer\"", "chain = \"answer\"\nmodel = \"detector\""),
    ("neither chain nor model", "chain = \"answer\"\n", ""),
    ("unknown model", "name = \"camera\"\nmodel = \"detector\"", "name = \"camera\"\nmodel = \"detecter\""),
    ("unknown variant", "name = \"camera\"\nmodel = \"detector\"", "name = \"camera\"\nmodel = \"detector/smal\""),
    (
        "variant without a cost",
        "name = \"camera\"\nmodel = \"detector\"",
        "name = \"camera\"\nmodel = \"detector/small\"",
    ),
    (
        "variants are not a word",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", model = \"detector\", variants = \"all\" }",
    ),
    (
        "unknown variant to choose",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", model = \"detector\", variants = [\"detector/smal\"] }",
    ),
    (
        "a variant twice",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", model = \"detector\", variants = [\"detector/small\", \"detector/small\"] }",
    ),
    (
        "a variant of another shape",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", model = \"detector\", variants = [\"painter\"] }",
    ),
    ("unknown stage", "stage = \"hear\"", "stage = \"heer\""),
    (
        "circle",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", model = \"detector\", after = [{ stage = \"speak\" }] }",
    ),
    (
        "stage after itself",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", model = \"detector\", after = [{ stage = \"hear\" }] }",
    ),
    ("no stages", "[chain.answer]\n", "[chain.empty]\nstage = []\n\n[chain.answer]\n"),
    ("probability above one", "probability = 0.5", "probability = 50"),
    ("fan-out of nothing", "probability = 0.5", "fan_out = 0"),
    ("fan-out of far too many", "probability = 0.5", "fan_out = 5000"),
    ("two numbers of instances", "per_tokens = 16", "per_tokens = 16, fan_out = 2"),
    ("tokens of a detector", "{ stage = \"hear\", probability = 0.5 }", "{ stage = \"hear\", per_tokens = 8 }"),
    ("no prompt", "prompt = 64, ", ""),
    ("prompt of nothing", "prompt = 64", "prompt = 0"),
    ("prompt for a painter", "steps = 4", "steps = 4, prompt = 5"),
    ("no steps", "steps = 4, ", ""),
    ("no size", "size = 40, ", ""),
    ("goal without tokens", "model = \"writer\"\narrival", "model = \"detector\"\narrival"),
    ("unknown processor", "processor = \"npu\"\nlatency_ms", "processor = \"ncu\"\nlatency_ms"),
    ("stage on a processor without a cost", "size = 40", "size = 40, on = [\"gpu\"]"),
    ("stage on an unknown processor", "size = 40", "size = 40, on = [\"dsp\"]"),
    (
        "a cost twice",
        "[[cost]]\nmodel = \"painter\"\nprocessor = \"gpu\"\nstep_ms = 50",
        "[[cost]]\nmodel = \"painter\"\nprocessor = \"gpu\"\nstep_ms = 50\n\n[[cost]]\nmodel = \"painter\"\nprocessor = \"gpu\"\nstep_ms = 60",
    ),
    ("cost of another shape", "latency_ms = 4", "step_ms = 4"),
    ("two latencies", "latency_ms = 4", "latency_ms = 4\nquantiles_ms = { p50 = 4 }"),
    ("falling quantiles", "latency_ms = 4", "quantiles_ms = { p50 = 4, p99 = 3 }"),
    ("half a language model", "decode_ms = [[0, 10], [2048, 30]]\n", ""),
    ("segments twice", "segments = 2", "segments = 2\nsegment_weights = [1, 2]"),
    ("table that goes back", "[[10, 5], [100, 40]]", "[[100, 40], [10, 5]]"),
    ("table that falls", "[[10, 5], [100, 40]]", "[[10, 40], [100, 5]]"),
    ("table without points", "[[10, 5], [100, 40]]", "[]"),
    (
        "batch that does not start at one",
        "step_ms = 50",
        "step_ms = 50\n\n[[cost]]\nmodel = \"writer\"\nprocessor = \"npu\"\nprefill_ms = [[1, 1]]\ndecode_ms = [[0, 1]]\nbatch_factor = [[2, 1.5]]",
    ),
    ("parameter of another distribution", "sigma = 0.5", "sigma = 0.5, cv = 1"),
    ("missing parameter", "sigma = 0.5, ", ""),
    ("uniform upside down", "low = 0, high = 2", "low = 3, high = 2"),
    (
        "quantiles without an end",
        "{ kind = \"uniform\", low = 0, high = 2 }",
        "{ kind = \"quantiles\", points = [[0, 1], [0.9, 2]] }",
    ),
    ("arrival without a rate", "rate_per_s = 0.5", "cv = 2"),
    (
        "trace that is not there",
        "{ process = \"poisson\", rate_per_s = 0.5 }",
        "{ process = \"trace\", file = \"gone.csv\" }",
    ),
    (
        "trace with a damaged row",
        "{ process = \"poisson\", rate_per_s = 0.5 }",
        "{ process = \"trace\", file = \"damaged.csv\" }",
    ),
    ("too many jobs a second", "fps = 30", "fps = 1e9"),
    ("unknown source", "latency_ms = 4", "latency_ms = 4\nsource = \"gess\""),
    ("source without a formula", "formula = \"made up for the test\"", "formula = \"\""),
    ("variation without a use", "[[phase]]", "[variation]\nspread = 0.1\n\n[[phase]]"),
    (
        "no processor",
        "processor = [{ name = \"npu\", kind = \"npu\" }, { name = \"gpu\", kind = \"gpu\", bandwidth_gbps = 50 }]",
        "processor = []",
    ),
    ("two processors of one name", "name = \"gpu\", kind", "name = \"npu\", kind"),
    ("link to nowhere", "[source.guess]", "[[platform.link]]\nfrom = \"npu\"\nto = \"gup\"\n\n[source.guess]"),
    (
        "thermal runaway",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, leakage_w = 1, leakage_per_k = 0.2, thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1 } }",
    ),
    (
        "heat of unknown power",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1 } }",
    ),
    (
        "heat at points of unknown power",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1 }, operating_point = [{ name = \"a\", speed = 1 }, { name = \"b\", speed = 0.5 }] }",
    ),
    (
        "throttle that is never released",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1, throttle_c = 60 }, operating_point = [{ name = \"a\", speed = 1, volts = 1 }, { name = \"b\", speed = 0.5, volts = 0.8 }] }",
    ),
    (
        "throttle that is released when it is hotter",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1, throttle_c = 60, release_c = 70 }, operating_point = [{ name = \"a\", speed = 1, volts = 1 }, { name = \"b\", speed = 0.5, volts = 0.8 }] }",
    ),
    (
        "throttle with one speed",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1, throttle_c = 60, release_c = 50 } }",
    ),
    (
        "leakage that grows with nothing",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", leakage_w = 1, leakage_per_k = 0.01 }",
    ),
    (
        "unknown governor",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", governor = \"interactive\", operating_point = [{ name = \"a\", speed = 1 }, { name = \"b\", speed = 0.5 }] }",
    ),
    (
        "first operating point that is not the profiled one",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", operating_point = [{ name = \"a\", speed = 2 }] }",
    ),
    ("memory of nothing", "capacity_gb = 8", "capacity_gb = 0"),
    (
        "no stream and no session",
        GOOD,
        "name = \"empty\"\nduration_s = 1\n[platform]\nname = \"p\"\nmemory = {}\nprocessor = [{ name = \"cpu\", kind = \"cpu\" }]\n",
    ),
    ("no platform", GOOD, "name = \"nowhere\"\nduration_s = 1\n"),
    ("unknown platform", GOOD, "name = \"nowhere\"\nduration_s = 1\nruns_on = [\"intel-npu-3721\"]\n"),
    ("a stage that is nothing", "{ name = \"hear\", model = \"detector\" }", "{ name = \"hear\" }"),
    ("model and tool", "{ name = \"hear\", model", "{ name = \"hear\", tool_ms = 5, model"),
    (
        "a tool with a prompt",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = 5, prompt = 10, variant = \"small\" }",
    ),
    (
        "a tool on a processor, not piecewise linear",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = { kind = \"exponential\", mean = 3 }, on = [\"npu\"] }",
    ),
    (
        "a tool on a processor that is not there",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = 4, on = [\"cpu\"] }",
    ),
    (
        "unknown source of a tool",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = 4, source = \"gess\" }",
    ),
    ("unknown adapter", "steps = 4,", "steps = 4, adapter = \"style\","),
    (
        "adapter of another model",
        "steps = 4, after = [{ stage = \"think\" }] },\n    { name = \"speak\", model = \"speaker\", size = 40, after = [{ stage = \"think\", per_tokens = 16 }] },\n]",
        "steps = 4, adapter = \"style\", after = [{ stage = \"think\" }] },\n]\n[adapter]\nstyle = { model = \"writer\", weights_mb = 5 }",
    ),
    ("an adapter of nothing", "[platform]", "[adapter]\nstyle = { model = \"writter\", weights_mb = 0 }\n[platform]"),
    (
        "repeats a stage that is not there",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [\"think\", \"her\"], probability = 0.5, at_most = 2 }]",
    ),
    (
        "repeats once",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [\"think\"], probability = 1.5, at_most = 1 }]",
    ),
    (
        "repeats a part with two ends",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [\"think\", \"paint\", \"speak\"], probability = 0.5, at_most = 2 }]",
    ),
    (
        "follows a part over an edge that is not plain",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [\"hear\"], probability = 0.5, at_most = 2 }]",
    ),
    (
        "follows a part from within",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [\"hear\", \"think\", \"paint\"], probability = 0.5, at_most = 2 }]",
    ),
    (
        "repeats a stage in two parts",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [\"paint\"], probability = 0.5, at_most = 2 }, { stages = [\"paint\"], probability = 0.5, at_most = 2 }]",
    ),
    (
        "idle-time work with a deadline",
        "period_ms = 500\npriority = 3",
        "period_ms = 500\npriority = 3\ndeadline_ms = 40\nbest_effort = true\ndrop = \"late\"",
    ),
    ("idle-time work with goals", "ttft_ms = 800", "ttft_ms = 800\nbest_effort = true"),
    ("a chunk without actions", "fps = 30", "fps = 30\nactions = { count = 0, period_ms = 0 }"),
    (
        "a chunk from a stage that is not there",
        "period_ms = 500",
        "period_ms = 500\nactions = { count = 8, period_ms = 20, first = \"think twice\" }",
    ),
    (
        "more active experts than there are",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 5, expert_mb = 10, resident = 0.5 }",
    ),
    (
        "more misses than missing experts",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.9, hit_rate = 0.1 }",
    ),
    (
        "experts larger than the model",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 20, per_layer = 40, active = 2, expert_mb = 10, resident = 0.5 }",
    ),
    (
        "no bandwidth for experts",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.5 }",
    ),
    (
        "experts of a painter",
        "painter = { shape = \"iterative\", ",
        "painter = { experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.5 }, shape = \"iterative\", ",
    ),
    (
        "more units than a processor can have",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", units = 65 }",
    ),
    ("no units", "{ name = \"npu\", kind = \"npu\" }", "{ name = \"npu\", kind = \"npu\", units = 0 }"),
    ("half a unit", "{ name = \"npu\", kind = \"npu\" }", "{ name = \"npu\", kind = \"npu\", units = 2.5 }"),
    (
        "units and slots",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", units = 4, slots = 2 }",
    ),
    (
        "cutting what is not divided",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", repartition_us = 100 }",
    ),
    (
        "cutting in less than no time",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", units = 4, repartition_us = -1 }",
    ),
    (
        "a real device that is divided",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", units = 4, device = \"rten\" }",
    ),
    ("a cost for no units", "latency_ms = 4", "latency_ms = 4\nunits = 0"),
    (
        "efficiency of no pieces",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nchunk_efficiency = []",
    ),
    (
        "pieces that are faster than the whole",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nchunk_efficiency = [[64, 1.2]]",
    ),
    (
        "pieces of no speed",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nchunk_efficiency = [[64, 0], [128, 1]]",
    ),
    (
        "efficiency that falls with the size",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nchunk_efficiency = [[64, 0.9], [128, 0.8]]",
    ),
    (
        "efficiency of one size twice",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nchunk_efficiency = [[64, 0.5], [64, 0.8]]",
    ),
    (
        "efficiency that is not a number",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nchunk_efficiency = [[64, nan]]",
    ),
    (
        "overhead of pieces that there are not",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nchunk_overhead_ms = 2",
    ),
    (
        "pieces of no tokens",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nprefill_chunk = 0",
    ),
    ("no groups of layers", "decode_ms = [[0, 10], [2048, 30]]", "decode_ms = [[0, 10], [2048, 30]]\nlayer_groups = 0"),
    (
        "mixed steps in words",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nmixed_steps = \"yes\"",
    ),
    ("mixed steps of a loop", "step_ms = 50", "step_ms = 50\nmixed_steps = true"),
    ("pieces of a loop", "step_ms = 50", "step_ms = 50\nchunk_efficiency = [[64, 1]]"),
    ("batches of a network in one piece", "latency_ms = 4", "latency_ms = 4\nbatch_factor = [[1, 1], [2, 1.5]]"),
    ("a batch of frames that is faster than one", "step_ms = 50", "step_ms = 50\nbatch_factor = [[1, 1], [4, 0.9]]"),
    ("a batch of frames that does not start at one", "step_ms = 50", "step_ms = 50\nbatch_factor = [[2, 1.5], [4, 2]]"),
    ("batches of no size", "step_ms = 50", "step_ms = 50\nbatch_factor = []"),
    (
        "reuse of negative bytes and energy",
        "step_ms = 50",
        "step_ms = 50\nreuse = { every = 4, step_ms = 10, bytes_mb = -1, energy_mj = nan }",
    ),
    ("reuse in a network without steps", "latency_ms = 4", "latency_ms = 4\nreuse = { every = 2, step_ms = 1 }"),
    ("an exchange of less than nothing", "weights_mb = 900 }", "weights_mb = 900, split = { points = 1, kb = -1 } }"),
    ("split at half a point", "weights_mb = 900 }", "weights_mb = 900, split = { points = 1.5 } }"),
    ("attention of a loop", "weights_mb = 900 }", "weights_mb = 900, attention = { points = 1 } }"),
    (
        "attention on a cache of unknown size",
        "weights_mb = 500, kv_kb_per_token = 30",
        "weights_mb = 500, attention = { points = 4 }",
    ),
    ("attention at no points", "kv_kb_per_token = 30", "kv_kb_per_token = 30, attention = { points = 0, kb = inf }"),
    (
        "a cache in slower memory with no layers",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, kv_offload = { layers = 0, share = 0, min_tokens = -3 }",
    ),
    (
        "more than all of a cache fetched",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, kv_offload = { layers = 32, share = 1.5 }",
    ),
    (
        "no layers in slower memory and too much fetched",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, kv_offload = { layers = 0, share = 1.5, min_tokens = 2000000 }",
    ),
    (
        "a cache of unknown size in slower memory",
        "weights_mb = 500, kv_kb_per_token = 30",
        "weights_mb = 500, kv_offload = { layers = 32 }",
    ),
    ("a loop's cache in slower memory", "weights_mb = 900 }", "weights_mb = 900, kv_offload = { layers = 32 } }"),
    (
        "slower memory of which nothing but the delay is known",
        "capacity_gb = 8",
        "capacity_gb = 8, swap_us = 50, swap_gb = 4",
    ),
    ("slower memory that does not move", "capacity_gb = 8", "capacity_gb = 8, swap_gbps = 0, kv_block_tokens = 0"),
    ("a conversation of no tokens", "ttft_ms = 800", "ttft_ms = 800\nconversation = 0"),
    ("two predictors", "ttft_ms = 800", "ttft_ms = 800\npredictor_sigma = 0.1\npredictor = \"history\""),
    ("a predictor that there is not", "ttft_ms = 800", "ttft_ms = 800\npredictor = \"oracle\""),
    ("a predictor that errs by less than nothing", "ttft_ms = 800", "ttft_ms = 800\npredictor_sigma = -0.1"),
    (
        "a predictor of a model without tokens",
        "model = \"writer\"\narrival = { process = \"poisson\", rate_per_s = 0.5 }\nprompt = { kind = \"lognormal\", median = 100, sigma = 0.5, min = 16, max = 1000 }\noutput = 50\nttft_ms = 800",
        "model = \"detector\"\narrival = { process = \"poisson\", rate_per_s = 0.5 }\npredictor_sigma = 0.5\nconversation = 100",
    ),
    (
        "experts without a layer",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 0, per_layer = 4, active = 0, expert_mb = 0, resident = 1.5 }",
    ),
    (
        "a skew below nothing",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.5, skew = -1 }",
    ),
    (
        "a skew that is not a number",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.5, skew = nan }",
    ),
    (
        "skew and hit rate",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.5, skew = 1, hit_rate = 0.8 }",
    ),
    (
        "a replacement that is unknown",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.5, skew = 1, replacement = \"fifo\" }",
    ),
    (
        "a replacement that decides nothing",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.5, replacement = \"lru\" }",
    ),
    (
        "a hit rate of more than all",
        "kv_kb_per_token = 30",
        "kv_kb_per_token = 30, experts = { layers = 2, per_layer = 4, active = 2, expert_mb = 10, resident = 0.5, hit_rate = 1.2 }",
    ),
    (
        "experts that the model has not",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nexperts_gbps = 20\nexpert_ms = 0.4",
    ),
    (
        "drafts of no tokens",
        "name = \"think\", model = \"writer\"",
        "name = \"think\", model = \"writer\", draft = { model = \"writer\", tokens = 0, acceptance = -0.1 }",
    ),
    (
        "drafts of a model that is not there",
        "name = \"think\", model = \"writer\"",
        "name = \"think\", model = \"writer\", draft = { model = \"writter\", tokens = 4, acceptance = 0.5 }",
    ),
    (
        "drafts that are accepted in words",
        "name = \"think\", model = \"writer\"",
        "name = \"think\", model = \"writer\", draft = { model = \"writer\", tokens = 4, acceptance = \"often\" }",
    ),
    (
        "drafts for a detector",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", model = \"detector\", draft = { model = \"writer\", tokens = 4, acceptance = 0.5 } }",
    ),
    (
        "verification that does not start at one token",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nverify_factor = [[2, 1.0], [8, 1.2]]",
    ),
    (
        "verification that is faster than a step",
        "decode_ms = [[0, 10], [2048, 30]]",
        "decode_ms = [[0, 10], [2048, 30]]\nverify_factor = [[1, 1.0], [8, 0.5]]",
    ),
    ("an exit that is not a number", "weights_mb = 5,", "weights_mb = 5, exits = [[nan, 0.5], [1, 0.5]],"),
    ("exits with less than nobody", "weights_mb = 5,", "weights_mb = 5, exits = [[0.5, -0.5], [1, 1.5]],"),
    ("the same exit twice", "weights_mb = 5,", "weights_mb = 5, exits = [[0.5, 0.5], [0.5, 0.2], [1, 0.3]],"),
    ("exits that are not pairs", "weights_mb = 5,", "weights_mb = 5, exits = [0.5, 1],"),
    (
        "a score that is not a number",
        "weights_mb = 1 }",
        "weights_mb = 1, quality = { metric = \"mIoU\", value = nan, higher_is_better = true } }",
    ),
    (
        "a tool that takes less than no time",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = -5 }",
    ),
    (
        "a tool that takes an unknown time",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = nan }",
    ),
    (
        "a tool whose times are upside down",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = { kind = \"uniform\", low = 9, high = 1 } }",
    ),
    (
        "a tool with drafts and variants",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = 5, variants = \"any\", draft = { model = \"writer\", tokens = 4, acceptance = 0.5 } }",
    ),
    (
        "a part that repeats nothing",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [], probability = 0.5, at_most = 2 }]",
    ),
    (
        "a part that repeats too often",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [\"paint\"], probability = nan, at_most = 17 }]",
    ),
    (
        "a stage twice in a part",
        "deadline_ms = 2000",
        "deadline_ms = 2000\nrepeat = [{ stages = [\"paint\", \"paint\"], probability = 0.5, at_most = 2 }]",
    ),
    (
        "an adapter that loads in less than no time",
        "[platform]",
        "[adapter]\nstyle = { model = \"writer\", weights_mb = 5, load_ms = -1 }\n[platform]",
    ),
    (
        "an adapter of a tool",
        "{ name = \"hear\", model = \"detector\" }",
        "{ name = \"hear\", tool_ms = 5, adapter = \"style\" }",
    ),
    (
        "an operating point that is faster than the first",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", operating_point = [{ name = \"a\", speed = 1 }, { name = \"b\", speed = 1.5 }] }",
    ),
    (
        "operating points out of order",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", operating_point = [{ name = \"a\", speed = 1 }, { name = \"b\", speed = 0.5 }, { name = \"c\", speed = 0.8 }] }",
    ),
    (
        "an operating point that stands still",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", operating_point = [{ name = \"a\", speed = 1 }, { name = \"b\", speed = 0, volts = 0, active_w = -1 }] }",
    ),
    (
        "two operating points of one name",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", operating_point = [{ name = \"a\", speed = 1 }, { name = \"a\", speed = 0.5 }] }",
    ),
    ("a governor of the platform that is unknown", "[platform]\n", "[platform]\npower = { governor = \"fast\" }\n"),
    (
        "a cap of nothing and a period of no time",
        "[platform]\n",
        "[platform]\npower = { cap_w = 0, governor_period_ms = 0, ambient_c = nan }\n",
    ),
    (
        "a throttle that nothing triggers",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1, release_c = 50 }, operating_point = [{ name = \"a\", speed = 1, active_w = 5 }, { name = \"b\", speed = 0.5, active_w = 2 }] }",
    ),
    (
        "a throttle that is released below the surroundings",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1, throttle_c = 60, release_c = 20 }, operating_point = [{ name = \"a\", speed = 1, active_w = 5 }, { name = \"b\", speed = 0.5, active_w = 2 }] }",
    ),
    (
        "a body without capacity",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, thermal = { resistance_k_per_w = 0, capacitance_j_per_k = 0 } }",
    ),
    (
        "a throttle with no time between its steps",
        "{ name = \"npu\", kind = \"npu\" }",
        "{ name = \"npu\", kind = \"npu\", active_w = 5, thermal = { resistance_k_per_w = 10, capacitance_j_per_k = 1, throttle_c = 60, release_c = 50, step_ms = 0 }, operating_point = [{ name = \"a\", speed = 1, active_w = 5 }, { name = \"b\", speed = 0.5, active_w = 2 }] }",
    ),
    ("a missing table", "memory = { capacity_gb = 8, bandwidth_gbps = 60 }\n", ""),
    ("a switch for a word", "period_ms = 500", "period_ms = 500\ndrop = true"),
    ("a number for a word", "kind = \"gpu\", bandwidth_gbps", "kind = 3, bandwidth_gbps"),
    ("a stage's name for an edge", "after = [{ stage = \"think\" }]", "after = [\"think\"]"),
    ("a word for arrivals", "arrival = { process = \"poisson\", rate_per_s = 0.5 }", "arrival = \"poisson\""),
    ("two brackets where one belongs", "[chain.answer]\ndeadline_ms", "[[chain]]\nname = \"answer\"\ndeadline_ms"),
    ("a name without its unit", "latency_ms = 4", "latency = 4"),
    ("a comma for a point", "latency_ms = 4", "latency_ms = 4,5"),
    ("a text without quotes", "process = \"poisson\"", "process = poisson"),
    ("a model that is declared nowhere", "model = \"detector\"\nfps", "model = \"own-net-2.0\"\nfps"),
];
