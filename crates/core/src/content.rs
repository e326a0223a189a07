//! What there is to see: classes of content, such as slow and fast motion, that follow each other in scenes.

use serde::{Deserialize, Serialize};

/// Something that streams look at: a sequence of scenes, each of one class.
///
/// Scenes have exponentially distributed lengths, and the class of a scene does not depend on the scenes before it. So a time without a
/// change of class is a geometric number of scenes, and the classes are a Markov chain in continuous time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Name.
    pub name: String,
    /// Its classes, at least one; their shares sum to 1.
    pub classes: Vec<Class>,
}

/// A class of content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// Name.
    pub name: String,
    /// Share of the time that belongs to it in the long run, in (0, 1].
    pub share: f64,
    /// Mean length of its scenes [ns], > 0.
    pub scene_ns: f64,
}

impl Content {
    /// The class at a time that nothing is known of, for a uniform number in [0, 1).
    pub fn at_any_time(&self, u: f64) -> u8 {
        pick(self.classes.iter().map(|class| class.share), u)
    }

    /// The class of a scene that begins, for a uniform number in [0, 1): classes with long scenes need fewer of them.
    pub fn of_next_scene(&self, u: f64) -> u8 {
        pick(self.classes.iter().map(|class| class.share / class.scene_ns), u * self.scenes_per_ns())
    }

    /// Share of all scenes that are of a class.
    pub fn share_of_scenes(&self, class: u8) -> f64 {
        let class = &self.classes[usize::from(class)];
        class.share / class.scene_ns / self.scenes_per_ns()
    }

    /// Mean time that a class lasts once it has begun [ns]: scene after scene, as long as the next one is of the same class.
    pub fn mean_stay_ns(&self, class: u8) -> f64 {
        self.classes[usize::from(class)].scene_ns / (1.0 - self.share_of_scenes(class))
    }

    fn scenes_per_ns(&self) -> f64 {
        self.classes.iter().map(|class| class.share / class.scene_ns).sum()
    }
}

/// The number of the weight in whose part of their sum `u` lies; the last one if rounding leaves nothing.
fn pick(weights: impl ExactSizeIterator<Item = f64>, u: f64) -> u8 {
    let last = weights.len().saturating_sub(1);
    let mut sum = 0.0;
    let mut reached = weights.map(|weight| {
        sum += weight;
        u < sum
    });
    reached.position(|reached| reached).unwrap_or(last) as u8
}

/// What a class of content changes about a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InContent {
    /// Work of an inference relative to the profile's, > 0.
    pub work: f64,
    /// Score of each variant, by number. Empty where they are unknown: then the scores over all content count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<f64>,
    /// The same relative to the best of the variants: 0 to 1, 1 for the best. Empty without a choice, and where that is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quality: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn street() -> Content {
        let class = |name: &str, share, scene_s: f64| Class { name: name.to_owned(), share, scene_ns: scene_s * 1e9 };
        Content {
            name: "street".to_owned(),
            classes: vec![class("slow", 0.6, 6.0), class("medium", 0.3, 3.0), class("fast", 0.1, 1.0)],
        }
    }

    #[test]
    fn classes_with_short_scenes_have_as_many_as_their_share_of_the_time_takes() {
        // 0.6 / 6 = 0.3 / 3 = 0.1 / 1: a third of the scenes each.
        let street = street();
        for class in 0..3 {
            assert!((street.share_of_scenes(class) - 1.0 / 3.0).abs() < 1e-12);
        }
        assert!((street.mean_stay_ns(0) - 9e9).abs() < 1.0 && (street.mean_stay_ns(2) - 1.5e9).abs() < 1.0);
        assert_eq!([0.0, 0.33, 0.34, 0.66, 0.67, 0.999_999].map(|u| street.of_next_scene(u)), [0, 0, 1, 1, 2, 2]);
        assert_eq!([0.0, 0.59, 0.61, 0.89, 0.91, 0.999_999].map(|u| street.at_any_time(u)), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_single_class_never_ends() {
        let mut street = street();
        street.classes.truncate(1);
        street.classes[0].share = 1.0;
        assert_eq!((street.at_any_time(0.999), street.of_next_scene(0.999)), (0, 0));
        assert_eq!(street.mean_stay_ns(0), f64::INFINITY);
    }
}
