//! What ships must work.

use onbeat_core::spec::{FileKind, Library, NoFiles, Options};
use onbeat_core::system::System;

#[test]
fn every_shipped_scenario_resolves_on_every_platform_that_it_names() {
    let library = Library::shipped();
    let mut problems = Vec::new();
    let mut resolved = 0;
    for name in library.names(FileKind::Scenario) {
        let scenario = match library.scenario(name, &NoFiles) {
            Ok(scenario) => scenario,
            Err(errors) => {
                problems.push(errors.to_string());
                continue;
            }
        };
        let mut platforms: Vec<Option<&str>> =
            scenario.runs_on.iter().map(|platform| Some(platform.as_str())).collect();
        if scenario.platform.is_some() {
            platforms.push(None);
        }
        if platforms.is_empty() {
            problems.push(format!("{name} names no platform"));
        }
        for platform in platforms {
            match library.resolve(name, platform, &Options::default(), &NoFiles) {
                Ok(system) => {
                    resolved += 1;
                    system.validate().unwrap();
                    let json = serde_json::to_string(&system).unwrap();
                    let back: System = serde_json::from_str(&json).unwrap();
                    assert_eq!(back, system, "{name} on {platform:?} survives JSON");
                    assert_eq!(back.hash(), system.hash());
                }
                Err(errors) => {
                    problems.push(format!("{name} on {}:\n{errors}", platform.unwrap_or("its own platform")));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
    assert!(resolved > 0);
}

#[test]
fn every_shipped_file_is_described_and_named_like_itself() {
    let library = Library::shipped();
    for name in library.names(FileKind::Platform) {
        let spec = library.platform(name, &NoFiles).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(spec.name, name);
    }
    for name in library.names(FileKind::Scenario) {
        let spec = library.scenario(name, &NoFiles).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(spec.name, name);
    }
    for kind in [FileKind::Platform, FileKind::Scenario] {
        for entry in library.entries(kind) {
            assert!(!entry.title.is_empty() && !entry.description.is_empty(), "{} has no description", entry.name);
            assert!(!entry.description.contains('\n'));
        }
    }
}

#[test]
fn every_shipped_profile_is_for_a_shipped_platform_and_has_no_mistake() {
    let library = Library::shipped();
    let platforms = library.names(FileKind::Platform);
    for name in library.names(FileKind::Profile) {
        let text = library.text(FileKind::Profile, name).unwrap();
        let document = onbeat_core::spec::Document::parse(name, text).unwrap_or_else(|errors| panic!("{errors}"));
        let spec: onbeat_core::spec::ProfileSpec = document.read().unwrap_or_else(|errors| panic!("{errors}"));
        let platform = spec.platform.unwrap_or_else(|| panic!("{name} names its platform"));
        assert!(platforms.contains(&platform.as_str()), "{name}: no platform {platform}");
        // A scenario that uses nothing of the profile still has it checked.
        let scenario = format!(
            "name = 'check'\nduration_s = 1\nrunsel = 1\nmodel.m = {{}}\nruns_on = ['{platform}']\n\
             stream = [{{ name = 's', model = 'm', fps = 1 }}]\ncost = [{{ model = 'm', processor = 'PROCESSOR', latency_ms = 1 }}]\n"
        );
        let processor = &library.platform(&platform, &NoFiles).unwrap().processor[0].name;
        let scenario = scenario.replace("runsel = 1\n", "").replace("PROCESSOR", processor);
        System::from_toml(&scenario).unwrap_or_else(|errors| panic!("{errors}"));
    }
    assert!(!library.models().is_empty());
}
