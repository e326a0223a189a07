//! What it costs to read a prompt in pieces: fitted to prompts that were read whole and in pieces of several sizes.
//!
//! The profile says that the tokens *a* to *b* as one piece take (L(b) − L(a)) / e(b − a), and an overhead if *a* > 0. A prompt of *N*
//! tokens in pieces of *n* therefore takes
//!
//! > T(n) = L(N) / e(n) + (⌈N / n⌉ − 1) · overhead
//!
//! One number per size cannot tell efficiency from overhead. Pieces of [`CHUNK`](super::measure::CHUNK) tokens, which are the profile's
//! segments, are taken to be as efficient as the whole prompt: what they cost beyond it is the overhead. What smaller pieces cost beyond
//! that is lost efficiency. So the fit gives back what was measured at every size, but for noise that would make a smaller piece the more
//! efficient one.

/// What pieces of a prompt cost.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pieces {
    /// Extra latency of a piece after the first [ms].
    pub(crate) overhead_ms: f64,
    /// Tokens per second relative to those of the whole prompt, by size of the piece [tokens]; not decreasing, the last is 1.
    pub(crate) efficiency: Vec<(f64, f64)>,
}

/// The least efficiency that a profile can state.
const EFFICIENCY_MIN: f64 = 1e-3;

/// Fits what pieces cost to a prompt of `tokens` tokens that took `whole_ms` as a whole, and so long in pieces of each size [tokens, ms],
/// smallest first; the last size is that of the profile's segments. `None` if that one is not smaller than the prompt.
pub(crate) fn fit(tokens: u32, whole_ms: f64, in_pieces: &[(u32, f64)]) -> Option<Pieces> {
    let later = |size: u32| f64::from(tokens.div_ceil(size.max(1)).saturating_sub(1));
    let &(largest, cut_ms) = in_pieces.last()?;
    if later(largest) < 1.0 || whole_ms <= 0.0 {
        return None;
    }
    let overhead_ms = ((cut_ms - whole_ms) / later(largest)).max(0.0);
    let mut efficiency: Vec<(f64, f64)> = Vec::new();
    let mut most = 1.0;
    for &(size, ms) in in_pieces.iter().rev() {
        let computing = ms - later(size) * overhead_ms;
        if size < largest && computing > 0.0 {
            most = (whole_ms / computing).clamp(EFFICIENCY_MIN, most);
        }
        efficiency.push((f64::from(size), most));
    }
    efficiency.reverse();
    Some(Pieces { overhead_ms, efficiency })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the profile's formula makes of a prompt in pieces.
    fn time(tokens: u32, whole_ms: f64, size: u32, efficiency: f64, overhead_ms: f64) -> f64 {
        whole_ms / efficiency + f64::from(tokens.div_ceil(size) - 1) * overhead_ms
    }

    #[test]
    fn the_fit_finds_what_the_times_were_made_of() {
        let made_of = [(8, 0.25), (16, 0.5), (32, 0.8), (64, 1.0)];
        let measured: Vec<(u32, f64)> =
            made_of.iter().map(|&(size, e)| (size, time(256, 100.0, size, e, 0.5))).collect();
        let pieces = fit(256, 100.0, &measured).expect("the prompt is longer than its pieces");
        assert!((pieces.overhead_ms - 0.5).abs() < 1e-9);
        for (&(size, e), &(fitted_size, fitted)) in made_of.iter().zip(&pieces.efficiency) {
            assert!((f64::from(size) - fitted_size).abs() < 1e-9 && (e - fitted).abs() < 1e-9, "{size}");
        }
    }

    #[test]
    fn by_hand() {
        // 254 tokens in four pieces of 64: 6 ms more are 2 ms for each of the three later ones. In eight pieces of 32, 7 × 2 ms of 139 ms
        // are overhead: 125 ms for what takes 100 as a whole.
        let pieces = fit(254, 100.0, &[(32, 139.0), (64, 106.0)]);
        assert_eq!(pieces, Some(Pieces { overhead_ms: 2.0, efficiency: vec![(32.0, 0.8), (64.0, 1.0)] }));
    }

    #[test]
    fn noise_makes_no_small_piece_better_than_a_large_one() {
        let pieces = fit(256, 100.0, &[(8, 110.0), (16, 125.0), (32, 90.0), (64, 99.0)]).expect("long enough");
        assert_eq!(pieces.overhead_ms, 0.0, "cutting does not make a prompt faster");
        assert_eq!(pieces.efficiency, [(8.0, 0.8), (16.0, 0.8), (32.0, 1.0), (64.0, 1.0)]);
        assert_eq!(fit(64, 100.0, &[(64, 100.0)]), None, "a prompt in one piece says nothing");
    }
}
