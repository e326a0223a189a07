//! The list of policies on the command line.

use onbeat_core::policy::Policy;
use onbeat_core::system::System;
use onbeat_policy::PolicyError;

use crate::failure::Failure;

/// The policies that are asked for, each with its parameters; `all` stands for every one with its defaults, the name of a group for its
/// members, `standard` for those that are run unless told otherwise.
pub(crate) fn select(lists: &[String]) -> Result<Vec<String>, Failure> {
    let mut selected: Vec<String> = Vec::new();
    for policy in split(lists) {
        let names = if policy == "all" {
            onbeat_policy::all().iter().map(|info| info.name.to_owned()).collect()
        } else if let Some(members) = onbeat_policy::group(&policy) {
            members.into_iter().map(str::to_owned).collect()
        } else {
            onbeat_policy::find(policy.split(':').next().unwrap_or_default().trim()).map_err(failure)?;
            vec![policy]
        };
        for name in names {
            if !selected.contains(&name) {
                selected.push(name);
            }
        }
    }
    if selected.is_empty() {
        return Err(Failure::usage("no policy is given", "name at least one, or `all`; see `onbeat list policies`"));
    }
    Ok(selected)
}

/// Makes a policy.
pub(crate) fn make(policy: &str, system: &System) -> Result<Box<dyn Policy>, Failure> {
    onbeat_policy::make(policy, system).map_err(failure)
}

fn failure(error: PolicyError) -> Failure {
    match error {
        // The suggestion moves from the middle of the message to its help.
        PolicyError::UnknownPolicy { name, known, suggestion } => {
            let help = match suggestion {
                _ if name.contains(',') => "one policy is needed here; `onbeat compare` takes several".to_owned(),
                Some(close) => format!("did you mean `{close}`? `onbeat list policies` shows all"),
                None => format!("policies are {}", known.join(", ")),
            };
            Failure::usage(format!("there is no policy `{name}`"), help)
        }
        other => Failure::Policy {
            message: other.to_string(),
            help: Some("`onbeat list policies` shows the parameters of every policy".to_owned()),
        },
    }
}

/// Splits `edf:preemptive=false,quantum_ms=1,llf` into `edf:preemptive=false,quantum_ms=1` and `llf`.
///
/// Commas separate policies and also a policy's parameters. A part that begins with `key=` belongs to the policy before it; since
/// no policy's name holds an equals sign, there is one reading.
pub(crate) fn split(lists: &[String]) -> Vec<String> {
    let mut policies: Vec<String> = Vec::new();
    for list in lists {
        let mut first = true;
        for part in list.split(',').map(str::trim) {
            match policies.last_mut() {
                Some(policy) if !first && is_parameter(part) => {
                    policy.push(if policy.contains(':') { ',' } else { ':' });
                    policy.push_str(part);
                }
                _ if part.is_empty() => {}
                _ => policies.push(part.to_owned()),
            }
            first = false;
        }
    }
    policies
}

/// Whether a part between commas is `key=value` rather than the start of another policy.
fn is_parameter(part: &str) -> bool {
    let equals = part.find('=');
    let colon = part.find(':');
    equals.is_some_and(|equals| colon.is_none_or(|colon| equals < colon))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_one(list: &str) -> Vec<String> {
        split(&[list.to_owned()])
    }

    #[test]
    fn commas_separate_policies_and_their_parameters() {
        assert_eq!(split_one("edf,llf"), ["edf", "llf"]);
        assert_eq!(split_one("edf:a=1,b=2,llf"), ["edf:a=1,b=2", "llf"]);
        assert_eq!(split_one("edf:a=1,b=2,llf:c=3"), ["edf:a=1,b=2", "llf:c=3"]);
        assert_eq!(split_one("edf, llf ,"), ["edf", "llf"]);
        // A colon in a value is no new policy.
        assert_eq!(split_one("static:x=1,mapping=a:npu,edf"), ["static:x=1,mapping=a:npu", "edf"]);
        assert_eq!(split(&["edf:a=1".to_owned(), "llf".to_owned()]), ["edf:a=1", "llf"]);
    }

    #[test]
    fn a_parameter_without_a_policy_is_left_for_the_registry_to_refuse() {
        assert_eq!(split_one("a=1"), ["a=1"]);
        assert_eq!(split(&["edf".to_owned(), "a=1".to_owned()]), ["edf", "a=1"]);
    }
}
