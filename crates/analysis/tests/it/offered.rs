//! Offered load by hand.

use onbeat_analysis::offered::offered_load;
use onbeat_core::id::ProcessorId;

use crate::support::{Builder, ms};

#[test]
fn load_is_rate_times_latency() {
    let mut builder = Builder::new(2, ms(1000));
    // 50 jobs/s of 10 ms on p0 or 4 ms on p1; a second stage half of the time, 20 ms on p0 only.
    let stream = builder.stream(ms(20));
    builder.stage(stream, 1.0, &[Some(10.0), Some(4.0)], None);
    builder.stage(stream, 0.5, &[Some(20.0), None], None);
    // Active for a quarter of the run at 100 jobs/s of 2 ms.
    let part = builder.stream(ms(10));
    builder.stage(part, 1.0, &[None, Some(2.0)], None);
    builder.system.sources[part].active = vec![(ms(500), ms(750))];
    let load = offered_load(&builder.system);
    assert_eq!(load.sources[0].jobs_per_s, 50.0);
    assert_eq!(load.sources[0].on.as_slice(), [Some(0.5 + 0.5), None]);
    assert!((load.sources[0].fastest - 0.7).abs() < 1e-12);
    assert_eq!(load.sources[1].jobs_per_s, 25.0);
    assert_eq!(load.sources[1].on.as_slice(), [None, Some(0.05)]);
    assert!((load.fastest[ProcessorId(0)] - 0.5).abs() < 1e-12 && (load.fastest[ProcessorId(1)] - 0.25).abs() < 1e-12);
    assert!((load.total - 0.375).abs() < 1e-12);
    builder.system.platform.processors[ProcessorId(1)].slots = 3;
    let load = offered_load(&builder.system);
    assert!((load.fastest[ProcessorId(1)] - 0.25 / 3.0).abs() < 1e-12 && (load.total - 0.75 / 4.0).abs() < 1e-12);
}

#[test]
fn on_a_divided_processor_the_width_with_the_least_unit_time_counts() {
    // 100 jobs/s: 6 ms on all four units, 10 on two, 18 on one. Unit-times are 24, 20 and 18 ms of 4: 0.45 of the processor. Undivided, or
    // with the entry for all units alone, the load is 0.6.
    let load = |widths: &[(u32, u32)]| {
        let entry = |&(units, latency): &(u32, u32)| {
            format!("[[cost]]\nmodel = \"a\"\nprocessor = \"npu\"\nunits = {units}\nlatency_ms = {latency}\n")
        };
        let costs: String = widths.iter().map(entry).collect();
        let text = format!(
            "name = \"parts\"\nduration_s = 1\n[platform]\nname = \"p\"\nmemory = {{}}\n\
             processor = [{{ name = \"npu\", kind = \"npu\", units = 4 }}]\n[model.a]\n{costs}\
             [[stream]]\nname = \"s\"\nmodel = \"a\"\nperiod_ms = 10\n"
        );
        let system = onbeat_core::system::System::from_toml(&text).unwrap_or_else(|errors| panic!("{errors}"));
        offered_load(&system)
    };
    let narrow = load(&[(4, 6), (2, 10), (1, 18)]);
    assert!((narrow.total - 0.45).abs() < 1e-12, "{}", narrow.total);
    assert!((narrow.sources[0].on[ProcessorId(0)].unwrap() - 0.45).abs() < 1e-12);
    assert!((load(&[(4, 6)]).total - 0.6).abs() < 1e-12);
    // What does not gain from fewer units takes all of them.
    assert!((load(&[(4, 5), (2, 10), (1, 21)]).total - 0.5).abs() < 1e-12);
}
