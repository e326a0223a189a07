//! The workloads, as scenario files. The benchmarks use them too.

use std::fmt::Write;

/// Three periodic tasks, two identical processors, global preemptive EDF.
pub(crate) fn edf(duration_s: f64) -> String {
    streams(2, &[(10.0, 4.0), (15.0, 6.0), (35.0, 14.0)], duration_s)
}

/// Periodic streams of (period, latency) [ms] on identical processors that preempt at any time.
fn streams(processors: u32, set: &[(f64, f64)], duration_s: f64) -> String {
    let mut toml = format!(
        "name = \"streams\"\nduration_s = {duration_s}\n[platform]\nname = \"p\"\n[platform.memory]\n\
         [[platform.processor]]\nname = \"core\"\nkind = \"cpu\"\ncount = {processors}\npreemption = \"anytime\"\n"
    );
    for (i, (period, latency)) in set.iter().enumerate() {
        write!(
            toml,
            "[model.m{i}]\n[[cost]]\nmodel = \"m{i}\"\nprocessor = \"core\"\nlatency_ms = {latency}\n\
             [[stream]]\nname = \"s{i}\"\nmodel = \"m{i}\"\nperiod_ms = {period}\n"
        )
        .expect("writing to a string succeeds");
    }
    toml
}

/// 1000 requests, Poisson 2/s, 512 tokens in, 128 out, with batched decode.
pub(crate) fn requests() -> String {
    r#"
    name = "requests"
    duration_s = 900
    [platform]
    name = "p"
    [platform.memory]
    [[platform.processor]]
    name = "gpu"
    kind = "gpu"
    [model.llm]
    shape = "autoregressive"
    [[cost]]
    model = "llm"
    processor = "gpu"
    prefill_ms = [[512, 60], [4096, 600]]
    decode_ms = [[0, 12], [4096, 16]]
    batch_factor = [[1, 1.0], [32, 1.6]]
    [[session]]
    name = "chat"
    model = "llm"
    arrival = { process = "poisson", rate_per_s = 2 }
    prompt = 512
    output = 128
    count = 1000
    "#
    .to_owned()
}

/// `n` streams with a total load of 1.4 on two processors, periods from 10 to 100 ms.
pub(crate) fn scaled(n: usize) -> String {
    let set: Vec<(f64, f64)> = (0..n)
        .map(|i| {
            let period = 10.0 + 90.0 * (i as f64 * 0.618).fract();
            (period, period * 1.4 / n as f64)
        })
        .collect();
    // The same number of jobs for every n: periods average 55 ms.
    streams(2, &set, 200_000.0 * 0.04 / n as f64)
}
