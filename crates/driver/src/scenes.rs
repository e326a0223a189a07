//! What there is to see as time goes on: scenes, each of one class of content.

use onbeat_core::content::Content;
use onbeat_core::units::Nanos;

use crate::random::{Key, Random, exponential, uniform};

/// Part of the key of a name that scenes are drawn from; sources use the others.
const SCENES: u64 = 3;

/// The scene that is to be seen. What follows depends on the seed, the content's name and the time: who looks at it, and when, changes
/// nothing.
#[derive(Clone, Debug)]
pub(crate) struct Scenes {
    random: Random,
    class: u8,
    end: Nanos,
}

impl Scenes {
    pub(crate) fn new(content: &Content, seed: u64) -> Self {
        let mut random = Key::of_source(seed, &content.name).part(SCENES).stream();
        let class = content.at_any_time(uniform(&mut random));
        let end = length(content, class, &mut random);
        Self { random, class, end }
    }

    /// The class at a time that is no earlier than those asked for before.
    pub(crate) fn at(&mut self, content: &Content, time: Nanos) -> u8 {
        while self.end <= time {
            self.class = content.of_next_scene(uniform(&mut self.random));
            self.end = self.end.saturating_add(length(content, self.class, &mut self.random));
        }
        self.class
    }
}

/// A length of a scene. What is left of a scene is as long as a whole one: it has no memory.
fn length(content: &Content, class: u8, random: &mut Random) -> Nanos {
    Nanos::from_ns_f64(exponential(random) * content.classes[usize::from(class)].scene_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onbeat_core::content::Class;

    fn street() -> Content {
        let class = |name: &str, share, scene_s: f64| Class { name: name.to_owned(), share, scene_ns: scene_s * 1e9 };
        Content {
            name: "street".to_owned(),
            classes: vec![class("slow", 0.6, 6.0), class("medium", 0.3, 3.0), class("fast", 0.1, 1.0)],
        }
    }

    #[test]
    fn classes_have_their_shares_and_stays() {
        let (street, mut time, mut stays) = (street(), [0.0; 3], [0_u32; 3]);
        let (mut scenes, mut last) = (Scenes::new(&street, 1), None);
        for _ in 0..300_000 {
            let begin = scenes.end;
            let class = usize::from(scenes.at(&street, begin));
            time[class] += (scenes.end - begin).as_secs();
            if last.replace(class) != Some(class) {
                stays[class] += 1;
            }
        }
        let all: f64 = time.iter().sum();
        for (class, share) in [0.6, 0.3, 0.1].into_iter().enumerate() {
            let found = time[class] / all;
            assert!((found / share - 1.0).abs() < 0.02, "share of {class}: {found} instead of {share}");
            let (found, mean) = (time[class] / f64::from(stays[class]), street.mean_stay_ns(class as u8) / 1e9);
            assert!((found / mean - 1.0).abs() < 0.02, "stay of {class}: {found} s instead of {mean}");
        }
    }

    #[test]
    fn the_beginning_is_as_any_other_time() {
        let street = street();
        let fast = (0..20_000).filter(|&seed| Scenes::new(&street, seed).at(&street, Nanos::ZERO) == 2).count();
        assert!((1_850..2_150).contains(&fast), "{fast} of 20000 runs begin with what is there a tenth of the time");
    }

    #[test]
    fn who_looks_seldom_sees_what_others_see() {
        let street = street();
        let (mut often, mut seldom) = (Scenes::new(&street, 7), Scenes::new(&street, 7));
        for frame in 0..100_000 {
            let class = often.at(&street, Nanos(frame * 33_000_000));
            if frame % 97 == 0 {
                assert_eq!(class, seldom.at(&street, Nanos(frame * 33_000_000)));
            }
        }
    }
}
