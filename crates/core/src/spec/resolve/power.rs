//! Operating points, leakage, heat and the power cap of a platform.

use crate::id::ProcessorId;
use crate::power::{Governor, Leakage, OperatingPoint, PowerModel, Thermal};
use crate::spec::check::Check;
use crate::spec::document::Document;
use crate::spec::error::SpecError;
use crate::spec::field::Field;
use crate::spec::{PlatformSpec, ProcessorSpec, limits};
use crate::system::{Figure, Platform, System};
use crate::units::Nanos;

use super::figures::Sources;
use super::platform::PlatformFile;

/// Temperature of the surroundings where the platform does not say [°C].
const AMBIENT_C: f64 = 25.0;
/// Least time between two steps of a throttle where the platform does not say [ms].
const THROTTLE_STEP_MS: f64 = 100.0;
/// Period of sampling governors where the platform does not say [ms]; that of Linux's `ondemand` on most machines.
const GOVERNOR_PERIOD_MS: f64 = 10.0;

/// Checks what holds for all processors.
pub(super) fn check_platform(check: &mut Check<'_>, root: &Field, spec: &PlatformSpec) {
    let at = root.key("power");
    check.optional(&at, "governor_period_ms", spec.power.governor_period_ms, &limits::GOVERNOR_PERIOD_MS);
    check.optional(&at, "cap_w", spec.power.cap_w, &limits::POWER_CAP_W);
    check.optional(&at, "ambient_c", spec.power.ambient_c, &limits::CELSIUS);
}

/// Checks a processor's points, leakage and heat. The figures that runs with them rest on.
pub(super) fn check(
    check: &mut Check<'_>,
    at: &Field,
    spec: &ProcessorSpec,
    platform: &str,
    sources: Sources<'_>,
) -> Vec<Figure> {
    let mut figures = Vec::new();
    let points = at.key("operating_point");
    for (i, point) in spec.operating_point.iter().enumerate() {
        let at = points.index(i);
        check.name(&at.key("name"), &point.name);
        check.optional(&at, "active_w", point.active_w, &limits::POWER_W);
        check.optional(&at, "idle_w", point.idle_w, &limits::POWER_W);
        check.optional(&at, "volts", point.volts, &limits::VOLTS);
        if check.number(&at, "speed", point.speed, &limits::POINT_SPEED) && i == 0 && point.speed != 1.0 {
            let problem = format!("the first operating point has speed {}", point.speed);
            check.wrong(&at.key("speed"), problem, "profiles are taken at the first one, the fastest: its speed is 1");
        }
        sources.check_key(check, &at.key("source"), "operating_point", point.source.as_deref());
        if spec.operating_point.len() > 1 {
            let what = format!("{platform}: {} operating point {}", spec.name, point.name);
            figures.push(sources.figure(what, point.source.as_deref(), None));
        }
    }
    check.distinct(
        "operating points",
        spec.operating_point.iter().enumerate().map(|(i, p)| (points.index(i).key("name"), p.name.as_str())),
    );
    check.number(at, "transition_us", spec.transition_us, &limits::OVERHEAD_US);
    check.number(at, "leakage_w", spec.leakage_w, &limits::POWER_W);
    check.number(at, "leakage_per_k", spec.leakage_per_k, &limits::LEAKAGE_PER_K);
    check.optional(at, "leakage_at_c", spec.leakage_at_c, &limits::CELSIUS);
    match &spec.thermal {
        None if spec.leakage_per_k != 0.0 => check.wrong(
            &at.key("leakage_per_k"),
            "leakage grows with a temperature that is not modelled",
            "add `thermal`, or leave `leakage_per_k` out",
        ),
        None => {}
        Some(_) => figures.extend(check_thermal(check, at, spec, platform, sources)),
    }
    figures
}

fn check_thermal(
    check: &mut Check<'_>,
    at: &Field,
    spec: &ProcessorSpec,
    platform: &str,
    sources: Sources<'_>,
) -> Option<Figure> {
    let node = spec.thermal.as_ref()?;
    let at = at.key("thermal");
    let sound = check.number(&at, "resistance_k_per_w", node.resistance_k_per_w, &limits::RESISTANCE_K_PER_W);
    check.number(&at, "capacitance_j_per_k", node.capacitance_j_per_k, &limits::CAPACITANCE_J_PER_K);
    check.optional(&at, "start_c", node.start_c, &limits::CELSIUS);
    check.optional(&at, "throttle_c", node.throttle_c, &limits::CELSIUS);
    check.optional(&at, "release_c", node.release_c, &limits::CELSIUS);
    check.optional(&at, "step_ms", node.step_ms, &limits::STEP_OF_THROTTLE_MS);
    let conductance = 1.0 / node.resistance_k_per_w - spec.leakage_w * spec.leakage_per_k;
    if sound && conductance <= 0.0 {
        check.wrong(
            &at.key("resistance_k_per_w"),
            format!(
                "thermal runaway: leakage grows by {} W per kelvin, and {} W per kelvin flow off",
                spec.leakage_w * spec.leakage_per_k,
                1.0 / node.resistance_k_per_w
            ),
            "`leakage_w` × `leakage_per_k` must be less than 1 ÷ `resistance_k_per_w`",
        );
    }
    match (node.throttle_c, node.release_c) {
        (Some(throttle), Some(release)) if release >= throttle => check.wrong(
            &at.key("release_c"),
            format!("the throttle is released at {release} °C, not below {throttle} °C"),
            "must be less than `throttle_c`",
        ),
        (Some(_), None) => {
            check.wrong(&at.key("throttle_c"), "the throttle is never released", "add `release_c`, below `throttle_c`");
        }
        (None, Some(_)) => {
            check.wrong(&at.key("release_c"), "there is no throttle to release", "add `throttle_c`");
        }
        (Some(_), Some(_)) if spec.operating_point.len() < 2 => check.wrong(
            &at.key("throttle_c"),
            "the throttle has no slower operating point to go to",
            "add a second `[[processor.operating_point]]`",
        ),
        _ => {}
    }
    sources.check_key(check, &at.key("source"), "thermal", node.source.as_deref());
    Some(sources.figure(format!("{platform}: {} thermal", spec.name), node.source.as_deref(), None))
}

/// Gives all processors of a platform their power models, if it has anything to model.
pub(super) fn resolve(file: PlatformFile<'_>, platform: &mut Platform) {
    let spec = file.spec;
    let plain = |p: &ProcessorSpec| p.operating_point.len() < 2 && p.thermal.is_none() && p.leakage_w == 0.0;
    if spec.power.cap_w.is_none() && spec.processor.iter().all(plain) {
        return;
    }
    for unit in &mut platform.processors {
        let declared = &spec.processor[unit.group as usize];
        unit.power = Some(model(spec, declared, unit.active_w));
    }
}

fn model(platform: &PlatformSpec, spec: &ProcessorSpec, active_w: Option<f64>) -> PowerModel {
    let ambient = platform.power.ambient_c.unwrap_or(AMBIENT_C);
    let fixed = PowerModel::fixed(spec.idle_w, active_w);
    let first_volts = spec.operating_point.first().and_then(|first| first.volts);
    let mut points: Vec<OperatingPoint> = Vec::new();
    for (i, point) in spec.operating_point.iter().enumerate() {
        let squared = point.volts.zip(first_volts).map(|(volts, first)| (volts / first) * (volts / first));
        // P = C V² f: at another voltage and clock.
        let derived = || Some(active_w? * point.speed * squared?);
        let busy = if i == 0 { active_w } else { point.active_w.or_else(derived) };
        let of_power = || Some(busy? / point.speed / active_w.filter(|&w| w > 0.0)?);
        points.push(OperatingPoint {
            name: point.name.clone(),
            speed: point.speed,
            active_w: busy,
            energy_factor: if i == 0 { Some(1.0) } else { squared.or_else(of_power) },
            idle_w: point.idle_w.unwrap_or(spec.idle_w),
        });
    }
    let thermal = spec.thermal.as_ref().map(|node| Thermal {
        resistance: node.resistance_k_per_w,
        capacitance: node.capacitance_j_per_k,
        ambient,
        start: node.start_c.unwrap_or(ambient),
        throttle: node.throttle_c,
        release: node.release_c.unwrap_or(ambient),
        step: Nanos::from_ms(node.step_ms.unwrap_or(THROTTLE_STEP_MS)),
    });
    PowerModel {
        points: if points.is_empty() { fixed.points } else { points },
        transition: Nanos::from_us(spec.transition_us),
        governor: spec.governor.unwrap_or(platform.power.governor),
        period: Nanos::from_ms(platform.power.governor_period_ms.unwrap_or(GOVERNOR_PERIOD_MS)),
        leakage: Leakage {
            watts: spec.leakage_w,
            per_kelvin: spec.leakage_per_k,
            reference: spec.leakage_at_c.unwrap_or(ambient),
        },
        thermal,
    }
}

/// Lets one governor choose on all processors.
pub(super) fn govern(platform: &mut Platform, governor: Governor) {
    for model in platform.processors.iter_mut().filter_map(|unit| unit.power.as_mut()) {
        model.governor = governor;
    }
}

/// Heat and a power cap need to know what every stage draws at every point.
pub(super) fn check_known(document: &Document, root: &Field, system: &System, errors: &mut Vec<SpecError>) {
    for (p, unit) in system.platform.processors.enumerate() {
        let Some(model) = &unit.power else { continue };
        let heats = model.thermal.is_some();
        if !heats && system.platform.power_cap.is_none() {
            continue;
        }
        let needs = if heats { "heat" } else { "a power cap" };
        let at = root.key("processor").index(unit.group as usize);
        let mut wrong = |at: Field, problem: String, help: &str| {
            errors.push(document.error(&at, problem, Some(help.to_owned())));
        };
        if let Some(name) = unknown_energy(system, p) {
            wrong(
                at.key("active_w"),
                format!(
                    "{needs} needs the power of all work, but neither `{name}` on `{}` nor the processor states any",
                    unit.name
                ),
                "state `active_w`, or `energy_mj` in the profile",
            );
        }
        for (i, point) in model.points.iter().enumerate().skip(1) {
            if point.active_w.is_none() && point.energy_factor.is_none() {
                wrong(
                    at.key("operating_point").index(i),
                    format!("{needs} needs the power at all operating points, but `{}` states none", point.name),
                    "state `active_w`, or `volts` here and at the first point",
                );
            }
        }
    }
}

/// A model that runs on the processor at unknown energy.
fn unknown_energy(system: &System, processor: ProcessorId) -> Option<&str> {
    if system.platform.processors[processor].active_w.is_some() {
        return None;
    }
    let costs = system.nodes.iter().filter_map(|node| Some((node.model, node.costs[processor].as_ref()?)));
    let mut unknown = costs.filter(|(_, cost)| {
        cost.phases.iter().any(|(_, phase)| phase.energy_mj(crate::cost::Work::default(), 0.0, 1.0).is_none())
    });
    unknown.next().map(|(model, _)| system.models[model].name.as_str())
}
