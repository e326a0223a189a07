//! Mean waits in queues with one server, as published: oracles for the simulator, and a first look at a load.
//!
//! All take an arrival rate λ and a mean service time E\[S\] in any consistent units, and return the mean time *waited
//! before* service in the unit of the service time; `None` if the server is overloaded (λ E\[S\] ≥ 1) or an argument is
//! negative or not finite.

/// M/M/1: ρ E\[S\] / (1 − ρ).
pub fn mm1_wait(rate: f64, service: f64) -> Option<f64> {
    mg1_wait(rate, service, 1.0)
}

/// M/D/1: half the wait of M/M/1.
pub fn md1_wait(rate: f64, service: f64) -> Option<f64> {
    mg1_wait(rate, service, 0.0)
}

/// M/G/1 by the Pollaczek–Khinchine formula: (1 + c²) / 2 · ρ E\[S\] / (1 − ρ), for service times with coefficient of
/// variation `cv`.
pub fn mg1_wait(rate: f64, service: f64, cv: f64) -> Option<f64> {
    let valid = [rate, service, cv].iter().all(|x| x.is_finite() && *x >= 0.0);
    let load = rate * service;
    (valid && load < 1.0).then(|| f64::midpoint(1.0, cv * cv) * load * service / (1.0 - load))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn textbook_values() {
        // λ = 0.5, S = 1: M/M/1 waits 1, M/D/1 waits 0.5.
        assert_eq!(mm1_wait(0.5, 1.0), Some(1.0));
        assert_eq!(md1_wait(0.5, 1.0), Some(0.5));
        // Services of 1 and 3 with equal probability: E[S] = 2, E[S²] = 5, so λ E[S²] / (2 (1 − ρ)) = 1 / 1.2 at λ = 0.2.
        assert!((mg1_wait(0.2, 2.0, 0.5).unwrap() - 0.2 * 5.0 / (2.0 * 0.6)).abs() < 1e-12);
    }

    #[test]
    fn an_overloaded_queue_has_no_mean() {
        assert_eq!(mm1_wait(1.0, 1.0), None);
        assert_eq!(mg1_wait(2.0, 1.0, 0.0), None);
        assert_eq!(mm1_wait(f64::NAN, 1.0), None);
        assert_eq!(mm1_wait(0.0, 1.0), Some(0.0));
    }
}
