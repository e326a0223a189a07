//! Parameters of a policy, as written after its name.

use onbeat_core::id::{IdVec, SourceId};
use onbeat_core::suggest::closest;
use onbeat_core::system::System;
use onbeat_core::units::Nanos;

use crate::registry::{PolicyError, PolicyInfo};

/// The parameters given to one policy; those left out have the defaults that its [`PolicyInfo`] states.
#[derive(Clone, Debug)]
pub(crate) struct Parameters<'a> {
    info: &'static PolicyInfo,
    given: Vec<(&'a str, &'a str)>,
}

impl<'a> Parameters<'a> {
    /// Reads `name=value,name=value`.
    pub(crate) fn parse(info: &'static PolicyInfo, text: &'a str) -> Result<Self, PolicyError> {
        let mut given: Vec<(&str, &str)> = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .map(|(name, value)| (name.trim(), value.trim()))
                .ok_or_else(|| PolicyError::Malformed { policy: info.name, text: part.to_owned() })?;
            let names = || info.parameters.iter().map(|parameter| parameter.name);
            if !names().any(|known| known == name) {
                return Err(PolicyError::UnknownParameter {
                    policy: info.name,
                    parameter: name.to_owned(),
                    allowed: names().collect(),
                    suggestion: closest(name, names()).map(str::to_owned),
                });
            }
            if given.iter().any(|&(known, _)| known == name) {
                return Err(PolicyError::RepeatedParameter { policy: info.name, parameter: name.to_owned() });
            }
            given.push((name, value));
        }
        Ok(Self { info, given })
    }

    /// Name of the policy, for errors.
    pub(crate) fn policy(&self) -> &'static str {
        self.info.name
    }

    /// The value as text.
    pub(crate) fn text(&self, name: &str) -> &'a str {
        let given = self.given.iter().find(|&&(known, _)| known == name).map(|&(_, value)| value);
        given.unwrap_or_else(|| {
            let declared = self.info.parameters.iter().find(|parameter| parameter.name == name);
            declared.expect("a policy reads only parameters that it declares").default
        })
    }

    /// A yes or no.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, PolicyError> {
        match self.text(name) {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(self.bad_value(name, other, "true or false")),
        }
    }

    /// A length of time in milliseconds, from 0 to an hour.
    pub(crate) fn milliseconds(&self, name: &'static str) -> Result<Nanos, PolicyError> {
        let text = self.text(name);
        let value = text.parse::<f64>().ok().filter(|ms| (0.0..=3_600_000.0).contains(ms));
        value
            .map(Nanos::from_ms)
            .ok_or_else(|| self.bad_value(name, text, "a number of milliseconds from 0 to 3600000"))
    }

    /// A number within a range; `allowed` says which, for the error.
    pub(crate) fn number(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<f64>,
        allowed: &'static str,
    ) -> Result<f64, PolicyError> {
        let text = self.text(name);
        let value = text.parse::<f64>().ok().filter(|value| range.contains(value));
        value.ok_or_else(|| self.bad_value(name, text, allowed))
    }

    /// A factor from 0 to 1000.
    pub(crate) fn factor(&self, name: &'static str) -> Result<f64, PolicyError> {
        let text = self.text(name);
        let value = text.parse::<f64>().ok().filter(|factor| (0.0..=1000.0).contains(factor));
        value.ok_or_else(|| self.bad_value(name, text, "a number from 0 to 1000"))
    }

    /// A count from 1 to 64.
    pub(crate) fn count(&self, name: &'static str) -> Result<usize, PolicyError> {
        let text = self.text(name);
        let value = text.parse::<usize>().ok().filter(|count| (1..=64).contains(count));
        value.ok_or_else(|| self.bad_value(name, text, "a whole number from 1 to 64"))
    }

    /// `SOURCE:NUMBER+SOURCE:NUMBER`: a number for each of the sources that `takes` names, the `default` for what is not named, by source.
    /// `allowed` says which form and range is right, for the error; `kind` what sources are meant.
    pub(crate) fn by_source(
        &self,
        parameter: &'static str,
        system: &System,
        takes: impl Fn(SourceId) -> bool,
        default: f64,
        range: impl Fn(f64) -> bool,
        (kind, allowed): (&'static str, &'static str),
    ) -> Result<IdVec<SourceId, f64>, PolicyError> {
        let mut numbers: IdVec<SourceId, f64> = system.sources.iter().map(|_| default).collect();
        for part in self.text(parameter).split('+').map(str::trim).filter(|part| !part.is_empty()) {
            let number = part.rsplit_once(':').and_then(|(name, number)| Some((name, number.parse::<f64>().ok()?)));
            let (name, number) =
                number.filter(|&(_, number)| range(number)).ok_or_else(|| self.bad_value(parameter, part, allowed))?;
            let known = || system.sources.ids().filter(|&source| takes(source));
            let names = || known().map(|source| system.sources[source].name.as_str());
            let source = known().find(|&source| system.sources[source].name == name);
            let source = source.ok_or_else(|| PolicyError::UnknownName {
                policy: self.info.name,
                parameter,
                kind,
                name: name.to_owned(),
                known: names().map(str::to_owned).collect(),
                suggestion: closest(name, names()).map(str::to_owned),
            })?;
            numbers[source] = number;
        }
        Ok(numbers)
    }

    fn bad_value(&self, parameter: &'static str, value: &str, allowed: &'static str) -> PolicyError {
        PolicyError::BadValue { policy: self.info.name, parameter, value: value.to_owned(), allowed }
    }
}
