//! The commands that the pages name: that the program takes them, and that what they name exists. Nothing is simulated.

use std::path::{Path, PathBuf};

use clap::FromArgMatches;
use onbeat::args::{Cli, Command, SystemArgs, command};
use onbeat_core::spec::{FileKind, Library, NoFiles, Options, is_path};

/// A command as a page has it.
struct Documented {
    page: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pages(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            pages(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path);
        }
    }
}

/// The commands in code spans, in blocks of shell commands, and in indented blocks. Without comments and redirections; those with an
/// ellipsis in them are none.
fn commands_of(page: &str, text: &str) -> Vec<Documented> {
    let mut found: Vec<String> = Vec::new();
    let mut fence: Option<&str> = None;
    let mut prose = String::new();
    for line in text.lines() {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_none() { Some(kind.trim()) } else { None };
            continue;
        }
        let code = match fence {
            Some(kind) => ["", "sh", "console"].contains(&kind) || (kind == "text" && line.starts_with("  onbeat ")),
            None => line.starts_with("    "),
        };
        if code {
            let line = line.trim().trim_start_matches("$ ");
            found.extend(line.starts_with("onbeat ").then(|| line.to_owned()));
        } else if fence.is_none() {
            prose += line;
            prose += "\n";
        }
    }
    // Every second piece between back quotes is code.
    found.extend(prose.split('`').skip(1).step_by(2).filter(|code| code.starts_with("onbeat ")).map(str::to_owned));
    let command = |text: String| {
        let words: Vec<&str> = text.split_whitespace().take_while(|word| !["#", ">", "|"].contains(word)).collect();
        Documented { page: page.to_owned(), text: words.join(" ") }
    };
    found.into_iter().map(command).filter(|command| !command.text.contains('…')).collect()
}

fn documented() -> Vec<Documented> {
    let root = root();
    let mut paths = vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("ARCHITECTURE.md")];
    pages(&root.join("docs"), &mut paths);
    paths.sort();
    let commands = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        commands_of(&path.strip_prefix(&root).expect("below it").to_string_lossy(), &text)
    };
    paths.iter().flat_map(commands).collect()
}

/// Whether a page's word stands for something that the reader puts in.
fn is_placeholder(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// Whether nothing but the reader knows what it is: a placeholder, or a file.
fn is_the_readers(name: &str) -> bool {
    is_placeholder(name) || is_path(name)
}

/// What is wrong with a command, if anything.
fn problem(text: &str) -> Result<(), String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if let [_, name] = words[..] {
        // A mention of the command, not a whole call.
        return if name.starts_with('-') || command().find_subcommand(name).is_some() {
            Ok(())
        } else {
            Err("there is no such command".to_owned())
        };
    }
    let matches = command().try_get_matches_from(&words).map_err(|error| error.to_string())?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.to_string())?;
    match &cli.command {
        Command::Compare(args) => names(&args.scenarios, &args.platforms, &args.policies, &args.system),
        Command::Simulate(args) => names(
            std::slice::from_ref(&args.scenario),
            args.platform.as_slice(),
            std::slice::from_ref(&args.policy),
            &args.system,
        ),
        Command::Check(args) => names(&args.scenarios, &args.platforms, &[], &args.system),
        Command::Estimate(args) => {
            names(&[], std::slice::from_ref(&args.platform), &[], &SystemArgs::default())?;
            match &args.model {
                Some(model) => known_model(model),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn known_model(name: &str) -> Result<(), String> {
    let (model, variant) = name.split_once('/').unwrap_or((name, ""));
    // Models of the reader's own are called so.
    if is_placeholder(name) || name.starts_with("my-") {
        return Ok(());
    }
    let spec = Library::shipped().models().into_iter().find(|(known, _)| *known == model);
    let Some((_, spec)) = spec else { return Err(format!("there is no model `{model}`")) };
    if variant.is_empty() || spec.variant.contains_key(variant) {
        Ok(())
    } else {
        Err(format!("`{model}` has no variant `{variant}`"))
    }
}

/// Looks up scenarios, platforms and policies, and resolves what is in the library with the command's options.
fn names(scenarios: &[String], platforms: &[String], policies: &[String], system: &SystemArgs) -> Result<(), String> {
    let library = Library::shipped();
    for policy in policies.iter().flat_map(|list| list.split(',')) {
        let name = policy.split(':').next().unwrap_or_default();
        let parameter = policy.contains('=') && !policy.contains(':');
        let group = name == "all" || onbeat_policy::group(name).is_some();
        if !(parameter || group || is_placeholder(name)) {
            onbeat_policy::find(name).map_err(|error| error.to_string())?;
        }
    }
    for platform in platforms.iter().filter(|name| !is_the_readers(name) && *name != "all") {
        if !library.names(FileKind::Platform).contains(&platform.as_str()) {
            return Err(format!("there is no platform `{platform}`"));
        }
    }
    let options = Options {
        overrides: system.set.clone(),
        duration: system.duration,
        governor: system.governor,
        ..Options::default()
    };
    for scenario in scenarios.iter().filter(|name| !is_the_readers(name) && *name != "all") {
        let spec = library.scenario(scenario, &NoFiles).map_err(|errors| errors.to_string())?;
        let known = |name: &&String| !is_the_readers(name) && *name != "all";
        if !system.profiles.is_empty() || platforms.iter().any(|name| !known(&name)) {
            continue;
        }
        let platform = platforms.first().or_else(|| spec.runs_on.first()).map(String::as_str);
        library.resolve(scenario, platform, &options, &NoFiles).map_err(|errors| errors.to_string())?;
    }
    Ok(())
}

#[test]
fn the_program_takes_the_commands_that_the_pages_name() {
    let commands = documented();
    assert!(commands.len() > 100, "only {} found: are they looked for in the right way?", commands.len());
    let wrong: Vec<String> = commands
        .iter()
        .filter_map(|command| {
            let why = problem(&command.text).err()?;
            Some(format!("{}: `{}`: {why}", command.page, command.text))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_wrong_command_is_noticed() {
    let page = "Try `onbeat compare gmae`.\n\n```sh\nonbeat simulate game --polcy edf   # a comment\n```\n\n    onbeat list > list.txt\n";
    let commands = commands_of("page.md", page);
    let texts: Vec<&str> = commands.iter().map(|command| command.text.as_str()).collect();
    assert_eq!(texts, ["onbeat simulate game --polcy edf", "onbeat list", "onbeat compare gmae"]);
    let wrong = [
        "onbeat simulate game --polcy edf",
        "onbeat compare gmae",
        "onbeat compare game --policy efd",
        "onbeat compare game --platform no-such-chip",
        "onbeat compare game --set stream.camra.fps=60",
        "onbeat estimate llama-4.2-3b --platform rk3588",
        "onbeat compear",
    ];
    for command in wrong {
        assert!(problem(command).is_err(), "{command}");
    }
}
