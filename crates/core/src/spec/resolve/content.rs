//! Content: its classes, and what they change about the stages of those who look at it.

use crate::content::{Class, Content, InContent};
use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::{ClassSpec, ContentSpec, ModelShape, ScenarioSpec, StageSpec, limits};

use super::chains::Stage;
use super::figures::Sources;
use super::models::{SUM_TOLERANCE, Variant, shape_name};
use super::nodes::Builder;
use super::sources::PlannedSource;

/// All content of a scenario, in the order of the file.
pub(super) fn resolve(check: &mut Check<'_>, scenario: &ScenarioSpec) -> Vec<Content> {
    let sources = Sources { table: &scenario.source, inline: true };
    let mut contents = Vec::new();
    for (name, spec) in &scenario.content {
        let at = Field::root().key("content").key(name);
        check.name(&at, name);
        sources.check_key(check, &at.key("source"), "source", spec.source.as_deref());
        check_classes(check, &at.key("classes"), spec);
        let class =
            |class: &ClassSpec| Class { name: class.name.clone(), share: class.share, scene_ns: class.scene_s * 1e9 };
        contents.push(Content { name: name.clone(), classes: spec.classes.iter().map(class).collect() });
    }
    contents
}

fn check_classes(check: &mut Check<'_>, at: &Field, spec: &ContentSpec) {
    if spec.classes.is_empty() || spec.classes.len() > limits::CLASSES_MAX {
        let problem = format!("there are {} classes", spec.classes.len());
        check.wrong(at, problem, format!("content has 1 to {} of them", limits::CLASSES_MAX));
        return;
    }
    let mut fine = true;
    for (i, class) in spec.classes.iter().enumerate() {
        let at = at.index(i);
        check.name(&at.key("name"), &class.name);
        fine &= check.number(&at, "share", class.share, &limits::SHARE)
            & check.number(&at, "scene_s", class.scene_s, &limits::SCENE_S);
    }
    let names = spec.classes.iter().enumerate().map(|(i, class)| (at.index(i).key("name"), class.name.as_str()));
    check.distinct("classes", names);
    let sum: f64 = spec.classes.iter().map(|class| class.share).sum();
    if fine && (sum - 1.0).abs() > SUM_TOLERANCE {
        check.wrong(
            at,
            format!("the shares of the time sum to {sum}"),
            "there is always something to see: they sum to 1",
        );
    }
}

/// Checks how a stage's work depends on content, as far as that is the same for all who run the stage.
pub(super) fn check_work(check: &mut Check<'_>, at: &Field, spec: &StageSpec, own: Option<&Variant<'_>>) {
    let at = at.key("work_by_content");
    for (class, &work) in &spec.work_by_content {
        check.value(&at.key(class), work, &limits::CONTENT_WORK);
    }
    let of_its_own = |model: &&Variant<'_>| !matches!(model.spec.shape, ModelShape::OneShot | ModelShape::Streaming);
    if let Some(model) = own.filter(of_its_own).filter(|_| !spec.work_by_content.is_empty()) {
        let problem =
            format!("`work_by_content` has no use: `{}` has the shape `{}`", model.model, shape_name(model.spec.shape));
        check.wrong(&at, problem, "it belongs to models of shape `one_shot` or `streaming`");
    }
}

/// Values relative to the best of them.
pub(super) fn relative_to_best(values: &[f64], higher_is_better: bool) -> Vec<f64> {
    let all = values.iter().copied();
    let best = if higher_is_better { all.fold(f64::MIN, f64::max) } else { all.fold(f64::MAX, f64::min) };
    let relative = |&value: &f64| {
        let ratio = if higher_is_better { value / best } else { best / value };
        if value == best { 1.0 } else { ratio }
    };
    values.iter().map(relative).collect()
}

impl<'a, 'c> Builder<'a, 'c> {
    /// Name and classes of what a source looks at.
    fn seen(&self, planned: &PlannedSource<'_>) -> Option<(&'c str, &'c [ClassSpec])> {
        let scenario: &'c ScenarioSpec = self.scenario;
        let (name, spec) = scenario.content.get_index(planned.source.content? as usize)?;
        Some((name.as_str(), &spec.classes))
    }

    /// Works of the classes that a source sees, with the classes' shares of the time.
    pub(super) fn shares(&self, planned: &PlannedSource<'_>, works: &[f64]) -> Vec<(f64, f64)> {
        let classes = self.seen(planned).map_or(&[][..], |(_, classes)| classes);
        works.iter().zip(classes).map(|(&work, class)| (work, class.share)).collect()
    }

    /// How much an inference of a stage is in each class of what its source sees, relative to the profile's; empty if it does not say what
    /// it sees. `None`: a mistake was reported.
    pub(super) fn works_in_content(&mut self, stage: &Stage<'a>, planned: &PlannedSource<'a>) -> Option<Vec<f64>> {
        let given = &stage.spec.work_by_content;
        let at = stage.field.key("work_by_content");
        let Some((_, seen)) = self.seen(planned) else {
            if !given.is_empty() {
                let problem = format!("`{}` does not say what it sees", planned.source.name);
                self.wrong(&at, problem, "add `content` to the stream, or leave this out".to_owned());
                return None;
            }
            return Some(Vec::new());
        };
        let names = || seen.iter().map(|class| class.name.as_str());
        let works = names().map(|name| given.get(name).copied().unwrap_or(1.0)).collect();
        let unknown: Vec<&String> = given.keys().filter(|&name| !names().any(|known| known == name)).collect();
        for name in &unknown {
            Check::new(self.document, &mut self.errors).unknown(&at.key(name), "class of content", name, names());
        }
        if !given.is_empty() {
            let sources = Sources { table: &self.scenario.source, inline: true };
            let key = stage.spec.source.as_deref();
            let mut check = Check::new(self.document, &mut self.errors);
            sources.check_key(&mut check, &stage.field.key("source"), "source", key);
            let figure = sources.figure(format!("stage {}: work by content", stage.spec.name), key, None);
            if !self.figures.contains(&figure) {
                self.figures.push(figure);
            }
        }
        unknown.is_empty().then_some(works)
    }

    /// What each class of what a stage's source sees changes about the stage. `works` are those of [`Builder::works_in_content`], `variants`
    /// all that it may run, its default one first.
    pub(super) fn in_content(
        &mut self,
        stage: &Stage<'a>,
        planned: &PlannedSource<'a>,
        works: Vec<f64>,
        variants: &[Variant<'a>],
    ) -> Vec<InContent> {
        let Some((name, seen)) = self.seen(planned) else { return Vec::new() };
        let assumption = format!(
            "What `{name}` shows is drawn: scenes have exponentially distributed lengths, and the class of a scene does not depend on those before it."
        );
        self.notes.assume(assumption);
        let qualities = || variants.iter().map(Variant::quality);
        let kind = |variant: &Variant<'a>| variant.quality().map(|quality| (&quality.metric, quality.higher_is_better));
        let higher = variants.first().and_then(kind).filter(|first| variants.iter().all(|v| kind(v) == Some(*first)));
        let mut all = Vec::new();
        for (class, work) in seen.iter().map(|class| &class.name).zip(works) {
            let scores: Option<Vec<f64>> = qualities().map(|quality| quality?.by_content.get(class).copied()).collect();
            if scores.is_none() && qualities().flatten().any(|quality| !quality.by_content.is_empty()) {
                self.notes.warn(format!(
                    "Not all that stage `{}` may run states its quality in content `{class}`: there the quality over all content counts.",
                    stage.spec.name
                ));
            }
            let scores = scores.unwrap_or_default();
            let comparable = variants.len() > 1 && scores.iter().all(|&score| score >= 0.0);
            let quality = match higher {
                Some((_, higher)) if comparable => relative_to_best(&scores, higher),
                _ => Vec::new(),
            };
            all.push(InContent { work, scores, quality });
        }
        all
    }
}
