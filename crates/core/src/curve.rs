//! Tables of figures as monotone functions: [`Curve`], and its running sum over integers, [`StepSum`].

use serde::{Deserialize, Serialize};

/// What a curve does below its first point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Below {
    /// Holds the first value.
    Hold,
    /// Goes straight to the origin: nothing costs nothing.
    Origin,
}

/// A function given by points: linear in between (so it never overshoots), going on with the slope of its last piece past
/// the last point (never downwards).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    points: Vec<(f64, f64)>,
    below: Below,
}

impl Curve {
    /// A curve through `points`.
    ///
    /// # Panics
    /// If there is no point, or the x are not strictly increasing. Files are validated before they get here.
    pub fn new(points: Vec<(f64, f64)>, below: Below) -> Self {
        assert!(!points.is_empty(), "a curve has at least one point");
        assert!(points.windows(2).all(|w| w[0].0 < w[1].0), "x increases strictly");
        Self { points, below }
    }

    /// The same value everywhere.
    pub fn constant(value: f64) -> Self {
        Self::new(vec![(0.0, value)], Below::Hold)
    }

    /// The points.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    /// The value at `x`.
    pub fn at(&self, x: f64) -> f64 {
        let points = &self.points;
        let above = points.partition_point(|&(px, _)| px <= x);
        if above == 0 {
            let (x0, y0) = points[0];
            return match self.below {
                Below::Hold => y0,
                Below::Origin => y0 * (x / x0).max(0.0),
            };
        }
        let (x0, y0) = points[above - 1];
        y0 + self.slope(above - 1) * (x - x0)
    }

    /// Whether `x` lies outside of the points, so that the value is extrapolated. A constant is never extrapolated.
    pub fn extrapolates(&self, x: f64) -> bool {
        let (first, last) = (self.points[0].0, self.points[self.points.len() - 1].0);
        self.points.len() > 1 && (x < first || x > last)
    }

    /// Slope of the piece that starts at point `i`.
    fn slope(&self, i: usize) -> f64 {
        let points = &self.points;
        if i + 1 < points.len() {
            (points[i + 1].1 - points[i].1) / (points[i + 1].0 - points[i].0)
        } else if points.len() > 1 {
            self.slope(i - 1).max(0.0)
        } else if self.below == Below::Origin && points[0].0 > 0.0 {
            points[0].1 / points[0].0
        } else {
            0.0
        }
    }
}

/// The sum of a curve over consecutive integers, in closed form: the cost of many decode steps without stepping
/// through them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSum {
    curve: Curve,
    /// Integer at which each piece of the curve starts, with the sum of the curve over all integers before it.
    pieces: Vec<(f64, f64)>,
}

impl StepSum {
    /// Running sum of `curve`, which must hold its first value below the first point.
    ///
    /// # Panics
    /// If the curve goes to the origin below its first point.
    pub fn new(curve: Curve) -> Self {
        assert!(curve.below == Below::Hold, "step costs hold their first value");
        let mut pieces = vec![(0.0, 0.0)];
        for &(x, _) in &curve.points {
            let start = x.ceil();
            let &(from, sum) = pieces.last().expect("the first piece was pushed above");
            if start > from {
                let n = start - from;
                // Arithmetic series: the curve is linear over the integers from..start.
                let series = f64::midpoint(curve.at(from), curve.at(start - 1.0)) * n;
                pieces.push((start, sum + series));
            }
        }
        Self { curve, pieces }
    }

    /// The curve that is summed.
    pub fn curve(&self) -> &Curve {
        &self.curve
    }

    /// Sum of the curve over the integers 0, 1, …, `n` − 1.
    pub fn before(&self, n: f64) -> f64 {
        let piece = self.pieces.partition_point(|&(start, _)| start <= n).saturating_sub(1);
        let (from, sum) = self.pieces[piece];
        let count = n - from;
        if count <= 0.0 {
            return sum;
        }
        sum + f64::midpoint(self.curve.at(from), self.curve.at(n - 1.0)) * count
    }

    /// Sum of the curve over the integers `from` ≤ i < `to`.
    pub fn between(&self, from: f64, to: f64) -> f64 {
        self.before(to) - self.before(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_linearly_and_extends_the_last_slope() {
        let curve = Curve::new(vec![(100.0, 10.0), (200.0, 30.0)], Below::Origin);
        assert_eq!(curve.at(50.0), 5.0);
        assert_eq!(curve.at(150.0), 20.0);
        assert_eq!(curve.at(300.0), 50.0);
        assert!(curve.extrapolates(300.0) && curve.extrapolates(50.0) && !curve.extrapolates(150.0));
        let held = Curve::new(vec![(100.0, 10.0), (200.0, 5.0)], Below::Hold);
        assert_eq!(held.at(1.0), 10.0);
        assert_eq!(held.at(1e6), 5.0, "never extrapolated downwards");
    }

    #[test]
    fn step_sum_equals_the_sum_of_the_steps() {
        let curve = Curve::new(vec![(10.5, 2.0), (20.0, 7.0), (33.3, 8.5)], Below::Hold);
        let sum = StepSum::new(curve.clone());
        for (from, to) in [(0, 5), (0, 11), (3, 40), (11, 12), (20, 21), (33, 34), (34, 90), (7, 7)] {
            let by_steps: f64 = (from..to).map(|i| curve.at(f64::from(i))).sum();
            let closed = sum.between(f64::from(from), f64::from(to));
            assert!((by_steps - closed).abs() < 1e-9, "{from}..{to}: {by_steps} against {closed}");
        }
    }
}
