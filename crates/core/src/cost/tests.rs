use super::*;
use crate::curve::Below;

fn prefill(chunk: Option<u32>) -> PhaseCost {
    PhaseCost::Prefill {
        latency_ns: Curve::new(vec![(100.0, 1000.0), (400.0, 7000.0)], Below::Origin),
        chunk,
        chunk_overhead_ns: 50.0,
        bytes_per_segment: 1e6,
        bytes_per_token: 10.0,
        energy_mj: None,
        pieces: Pieces::default(),
    }
}

/// The same, in pieces of any size: of 50 tokens at half the speed, of 200 and more at full speed.
fn any_size() -> PhaseCost {
    let mut cost = prefill(None);
    if let PhaseCost::Prefill { pieces, chunk_overhead_ns, .. } = &mut cost {
        pieces.efficiency = Some(Curve::new(vec![(50.0, 0.5), (200.0, 1.0)], Below::Hold));
        *chunk_overhead_ns = 0.0;
    }
    cost
}

#[test]
fn small_pieces_of_a_prompt_are_less_efficient() {
    let work = Work { prompt: 400, output: 1, steps: 0, exit: 1.0, scale: 1.0 };
    let cost = any_size();
    // The tokens 100 to 150 take 1000 ns in the whole prompt, and twice that alone; 125 tokens run at 0.75 of the speed.
    assert_eq!(cost.piece_ns(work, 100.0, 150.0), 2000.0);
    assert_eq!(cost.piece_ns(work, 100.0, 225.0), 2500.0 / 0.75);
    assert_eq!(cost.piece_ns(work, 0.0, 400.0), 7000.0, "past the last point the efficiency is held");
    assert_eq!(cost.piece_ns(work, 0.0, 10.0), 200.0, "and below the first");
    assert_eq!(cost.piece_bytes(work, 100.0, 150.0), 1e6 + 500.0);
    assert_eq!(prefill(None).piece_ns(work, 0.0, 10.0), 100.0, "only as a part of the whole");
}

#[test]
fn a_limit_in_units_ends_where_the_device_can_end() {
    let work = Work { prompt: 250, output: 9, steps: 0, exit: 1.0, scale: 1.0 };
    let end = |cost: &PhaseCost, from, units| cost.limit_end(work, Phase::Prefill, from, Limit::Units(units));
    assert_eq!(end(&any_size(), 30.0, 70), 100.0);
    assert_eq!(end(&any_size(), 230.0, 70), 250.0);
    assert_eq!(end(&prefill(Some(100)), 0.0, 1), 100.0);
    assert_eq!(end(&prefill(Some(100)), 0.0, 100), 100.0);
    assert_eq!(end(&prefill(Some(100)), 100.0, 101), 250.0);
    assert_eq!(end(&prefill(None), 0.0, 1), 250.0);
    let decode = PhaseCost::Decode {
        step_ns: StepSum::new(Curve::constant(1.0)),
        batch: None,
        bytes_per_step: 0.0,
        bytes_per_context_token: 0.0,
        energy_mj: None,
    };
    assert_eq!(decode.limit_end(work, Phase::Decode, 2.0, Limit::Units(3)), 5.0);
    assert_eq!(decode.limit_end(work, Phase::Decode, 2.0, Limit::Segments(3)), 5.0);
    assert_eq!(decode.limit_end(work, Phase::Decode, 6.0, Limit::Units(3)), 8.0);
}

#[test]
fn a_mixed_step_reads_the_weights_once() {
    // A step of 10 ms, 8 of them reading weights: a piece of 6 ms is free, one of 20 saves the 8.
    assert_eq!(mixed_step_ns(10.0, 6.0, 8.0), 10.0);
    assert_eq!(mixed_step_ns(10.0, 20.0, 8.0), 22.0);
    assert_eq!(mixed_step_ns(10.0, 20.0, 0.0), 30.0, "no bandwidth is known: one after the other");
    assert_eq!(mixed_step_ns(10.0, 20.0, 15.0), 20.0, "weights cannot take longer than the step");
}

#[test]
fn a_prompt_in_chunks_costs_its_latency_plus_an_overhead_per_later_chunk() {
    let work = Work { prompt: 250, output: 4, steps: 0, exit: 1.0, scale: 1.0 };
    // 250 tokens: 1000 + 150 * 20 = 4000 ns; chunks of 100: two later ones.
    assert_eq!(prefill(None).latency_ns(work, 0.0, 250.0), 4000.0);
    let chunked = prefill(Some(100));
    assert_eq!(chunked.latency_ns(work, 0.0, 250.0), 4100.0);
    let parts = chunked.latency_ns(work, 0.0, 100.0)
        + chunked.latency_ns(work, 100.0, 200.0)
        + chunked.latency_ns(work, 200.0, 250.0);
    assert_eq!(parts, 4100.0);
    assert_eq!(chunked.bytes(work, 0.0, 250.0), 3e6 + 2500.0);
    assert_eq!(chunked.next_boundary(work, Phase::Prefill, 100.0), 200.0);
    assert_eq!(chunked.next_boundary(work, Phase::Prefill, 200.0), 250.0);
    assert_eq!(prefill(None).next_boundary(work, Phase::Prefill, 0.0), 250.0);
}

#[test]
fn some_steps_reuse_what_a_full_one_has_computed() {
    let reuse = Some(Reuse { every: 3, step_ns: 20.0, bytes: 1.0, energy_mj: Some(0.5) });
    let cost = PhaseCost::Steps { step_ns: 100.0, bytes: 10.0, energy_mj: Some(4.0), reuse, batch: None, weights: 0.0 };
    let work = Work { steps: 7, ..Work::default() };
    // Full, two that reuse, full, two that reuse, full.
    assert_eq!(cost.latency_ns(work, 0.0, 7.0), 3.0 * 100.0 + 4.0 * 20.0);
    assert_eq!(cost.bytes(work, 0.0, 7.0), 34.0);
    assert_eq!(cost.energy_mj(work, 0.0, 7.0), Some(14.0));
    assert_eq!(cost.latency_ns(work, 2.0, 4.0), 120.0);
    assert_eq!(cost.latency_ns(work, 2.5, 3.25), 10.0 + 25.0);
    assert_eq!(cost.position_after(work, 0.0, 7.0, 130.0), 2.5);
    assert_eq!(cost.position_after(work, 2.0, 7.0, 20.0 + 50.0), 3.5);
    assert_eq!(cost.position_after(work, 0.0, 7.0, 1e9), 7.0);
    assert_eq!(cost.next_boundary(work, Phase::Steps, 3.0), 4.0);
}

#[test]
fn a_member_of_a_batch_moves_its_part_of_the_weights_and_what_is_its_own() {
    let reuse = Some(Reuse { every: 4, step_ns: 1.0, bytes: 10e6, energy_mj: Some(1.0) });
    let batch = Some(Curve::new(vec![(1.0, 1.0), (2.0, 1.5)], Below::Hold));
    let cost = PhaseCost::Steps { step_ns: 4.0, bytes: 120e6, energy_mj: Some(4.0), reuse, batch, weights: 100e6 };
    let work = Work { steps: 8, ..Work::default() };
    // Four steps: 120 MB, of which 100 are weights, and three times 10 MB, which are no more than the weights.
    assert_eq!(cost.bytes(work, 0.0, 4.0), 150e6);
    assert_eq!(cost.member_bytes(work, 0.0, 4.0, 2), 150e6 - 50e6 - 15e6);
    assert_eq!(cost.member_bytes(work, 1.0, 4.0, 2), 15e6);
    assert_eq!(cost.member_bytes(work, 0.0, 4.0, 1), 150e6);
    // A step of two takes 1.5 times as long at the same power, for both.
    assert_eq!(cost.member_energy_mj(work, 0.0, 4.0, 2), Some(7.0 * 0.75));
}

#[test]
fn decode_grows_with_context_and_knows_where_it_is() {
    let cost = PhaseCost::Decode {
        step_ns: StepSum::new(Curve::new(vec![(0.0, 100.0), (1000.0, 1100.0)], Below::Hold)),
        batch: None,
        bytes_per_step: 1000.0,
        bytes_per_context_token: 2.0,
        energy_mj: Some(3.0),
    };
    let work = Work { prompt: 99, output: 11, steps: 0, exit: 1.0, scale: 1.0 };
    // Contexts 100..110, 200 ns at context 100 and one more per token.
    let by_hand: f64 = (0..10).map(|i| 200.0 + f64::from(i)).sum();
    assert!((cost.latency_ns(work, 0.0, 10.0) - by_hand).abs() < 1e-9);
    assert_eq!(cost.position_after(work, 0.0, 10.0, 200.0 + 201.0), 2.0);
    assert_eq!(cost.position_after(work, 0.0, 10.0, 200.0 + 200.0), 1.0);
    assert_eq!(cost.position_after(work, 0.0, 10.0, 1e9), 10.0);
    // Mean context of ten steps: 104.5.
    assert_eq!(cost.bytes(work, 0.0, 10.0), (1000.0 + 209.0) * 10.0);
    assert_eq!(cost.energy_mj(work, 2.0, 4.0), Some(6.0));
    assert_eq!(cost.member_energy_mj(work, 2.0, 4.0, 3), Some(2.0), "one step for all three");
    assert_eq!(cost.member_bytes(work, 0.0, 10.0, 4), (250.0 + 209.0) * 10.0);
    assert_eq!(cost.next_boundary(work, Phase::Decode, 2.0), 3.0);
    // Half of the layers: half of everything, and steps end where they ended.
    let half = Work { exit: 0.5, ..work };
    assert!((cost.latency_ns(half, 0.0, 10.0) - by_hand / 2.0).abs() < 1e-9);
    assert_eq!(cost.bytes(half, 0.0, 10.0), (1000.0 + 209.0) * 5.0);
    assert_eq!(cost.energy_mj(half, 2.0, 4.0), Some(3.0));
    assert_eq!(cost.member_bytes(half, 0.0, 10.0, 4), (250.0 + 209.0) * 5.0);
    assert_eq!(cost.position_after(half, 0.0, 10.0, 201.0), 2.0);
    assert_eq!(half.units(Phase::Decode), 10.0);
}
