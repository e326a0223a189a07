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
