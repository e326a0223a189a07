//! Checks what models say of their architecture. No run depends on it; estimates do.

use crate::spec::check::Check;
use crate::spec::field::Field;
use crate::spec::{Mistake, ModelShape, ModelSpec};

use super::figures::Sources;
use super::models::shape_name;

/// Reports what cannot be, what has no source, and what does not belong to the model's shape.
pub(super) fn check(check: &mut Check<'_>, at: &Field, model: &ModelSpec, sources: Sources<'_>) {
    let autoregressive = model.shape == ModelShape::Autoregressive;
    if let Some(spec) = &model.transformer {
        let at = at.key("transformer");
        report(check, &at, spec.mistakes());
        sources.check_key(check, &at.key("source"), "transformer", spec.source.as_deref());
        if !autoregressive {
            let problem = format!("a model of shape `{}` is no language model", shape_name(model.shape));
            check.wrong(&at, problem, "`transformer` belongs to `autoregressive`; give `network` instead");
        }
    }
    if let Some(spec) = &model.network {
        let at = at.key("network");
        report(check, &at, spec.mistakes());
        sources.check_key(check, &at.key("source"), "network", spec.source.as_deref());
        if autoregressive {
            let problem = "the totals of one inference say nothing of prompts and contexts";
            check.wrong(&at, problem, "a model of shape `autoregressive` has a `transformer`");
        }
    }
}

fn report(check: &mut Check<'_>, at: &Field, mistakes: Vec<Mistake>) {
    for (key, problem, help) in mistakes {
        check.wrong(&at.key(key), problem, help);
    }
}
