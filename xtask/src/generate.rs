//! References that are written from the code: metrics, policies, exit codes, command line, file schemas, library.

use std::path::Path;

use onbeat::exit::Exit;
use onbeat_core::metric::{Better, Metric, Scope, Unit};
use onbeat_core::spec::{FileKind, Library, ModelShape, NoFiles};

/// The clippy.toml whose capability bans hold in all pure crates, and its copies: clippy merges nothing, each crate needs its own.
const BANS: &str = "crates/core/clippy.toml";
const BANS_COPIES: &[&str] = &[
    "crates/policy/clippy.toml",
    "crates/driver/clippy.toml",
    "crates/sim/clippy.toml",
    "crates/analysis/clippy.toml",
];

/// A generated file: where it lies and what it holds.
struct Generated {
    path: String,
    text: String,
}

/// Writes every file that is out of date.
pub(crate) fn write() -> Result<(), String> {
    for Generated { path, text } in generate()? {
        if is_current(&path, &text) {
            continue;
        }
        let failed = |problem: std::io::Error| format!("cannot write {path}: {problem}");
        if let Some(folder) = Path::new(&path).parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        std::fs::write(&path, text).map_err(failed)?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Tells which files are out of date.
pub(crate) fn check() -> Result<(), String> {
    let files = generate()?;
    let stale: Vec<&str> =
        files.iter().filter(|file| !is_current(&file.path, &file.text)).map(|file| file.path.as_str()).collect();
    println!("{} generated files", files.len());
    if stale.is_empty() { Ok(()) } else { Err(format!("out of date, run `cargo xtask gen`: {}", stale.join(", "))) }
}

fn is_current(path: &str, text: &str) -> bool {
    // Line ends are git's business.
    std::fs::read_to_string(path).is_ok_and(|present| present.replace("\r\n", "\n") == text)
}

fn generate() -> Result<Vec<Generated>, String> {
    let page = |name: &str, text: String| Generated { path: format!("docs/reference/{name}"), text };
    let mut files = vec![
        page("metrics.md", metrics()),
        page("policies.md", policies()),
        page("exit-codes.md", exit_codes()),
        page("cli.md", command_line()),
        page("library.md", library()?),
    ];
    for kind in [FileKind::Platform, FileKind::Profile, FileKind::Scenario] {
        files.push(page(&format!("schema/{}.schema.json", kind.name()), schema(kind)));
    }
    let bans = std::fs::read_to_string(BANS).map_err(|problem| format!("cannot read {BANS}: {problem}"))?;
    files.extend(BANS_COPIES.iter().map(|path| Generated { path: (*path).to_owned(), text: bans.clone() }));
    Ok(files)
}

/// Title, and where the page comes from.
fn head(title: &str, source: &str) -> String {
    format!("<!-- Written by `cargo xtask gen` from {source}; changes here are lost. -->\n\n# {title}\n\n")
}

/// Text as the content of a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn metrics() -> String {
    let mut page = head("Metrics", "`crates/core/src/metric.rs`");
    page.push_str(
        "Every number that a table, plot or file shows, computed from a record and nothing else. Jobs released during the warm-up count in \
         none of them. A metric that does not apply is left out, never zero.\n\n\
         *Of*: `run`, only of the whole run; `source`, of each stream and session and of the whole run; `processor`, of each processor \
         and of the whole run. Fractions are stored as 0 to 1 and shown in per cent.\n\n\
         | name | shown as | unit | of | better | meaning |\n|---|---|---|---|---|---|\n",
    );
    for metric in Metric::ALL {
        let unit = match metric.unit() {
            Unit::Count => "count",
            Unit::Score => "score",
            unit => unit.symbol(),
        };
        let of = match metric.scope() {
            Scope::Run => "run",
            Scope::Source => "source",
            Scope::Processor => "processor",
        };
        let better = match metric.better() {
            Better::Lower => "lower",
            Better::Higher => "higher",
            Better::Neutral => "–",
        };
        let (name, short, meaning) = (metric.name(), cell(metric.short()), cell(metric.meaning()));
        put(&mut page, &format!("| `{name}` | {short} | {unit} | {of} | {better} | {meaning} |"));
    }
    page
}

fn policies() -> String {
    let mut page = head("Policies", "`crates/policy/src/registry.rs`");
    page.push_str(
        "Each has a page of its own. Parameters follow the name after a colon: `--policy edf:preemptive=false`.\n\n\
         | policy | family | in one line |\n|---|---|---|\n",
    );
    for policy in onbeat_policy::all() {
        let name = policy.name;
        put(
            &mut page,
            &format!("| [`{name}`](../policies/{name}.md) | {} | {} |", cell(policy.group), cell(policy.summary)),
        );
    }
    for policy in onbeat_policy::all() {
        put(&mut page, &format!("\n## {}\n\nReference: {}\n", policy.name, policy.reference));
        if policy.parameters.is_empty() {
            put(&mut page, "It has no parameters.");
            continue;
        }
        put(&mut page, "| parameter | default | meaning |\n|---|---|---|");
        for parameter in policy.parameters {
            let default =
                if parameter.default.is_empty() { "none".to_owned() } else { format!("`{}`", parameter.default) };
            put(&mut page, &format!("| `{}` | {default} | {} |", parameter.name, cell(parameter.meaning)));
        }
    }
    page
}

fn exit_codes() -> String {
    let mut page = head("Exit codes", "`crates/cli/src/exit.rs`");
    page.push_str("Scripts may rely on them.\n\n| code | meaning |\n|---|---|\n");
    for exit in Exit::ALL {
        put(&mut page, &format!("| {} | {} |", exit.code(), cell(exit.meaning())));
    }
    page
}

fn command_line() -> String {
    let mut page = head("Command line", "`crates/cli/src/args.rs`");
    // A fixed width, so that the page does not depend on the terminal that it is written in.
    let mut command = onbeat::args::command().term_width(100);
    command.build();
    let mut section = |title: String, help: String| {
        put(&mut page, &format!("## {title}\n\n```text"));
        for line in help.trim_end().lines() {
            put(&mut page, line.trim_end());
        }
        put(&mut page, "```\n");
    };
    section("onbeat".to_owned(), command.render_long_help().to_string());
    for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
        section(format!("onbeat {}", sub.get_name()), sub.render_long_help().to_string());
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn schema(kind: FileKind) -> String {
    let schema = onbeat_core::spec::schema(kind);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema holds only strings and numbers");
    text.push('\n');
    text
}

fn library() -> Result<String, String> {
    let library = Library::shipped();
    let mut page = head("Library", "the files under `library/`");
    page.push_str("What ships with onbeat. `onbeat show NAME` prints a file with the sources of its figures.\n");

    put(&mut page, "\n## Scenarios\n\n| scenario | title | made for | what it is |\n|---|---|---|---|");
    for entry in library.entries(FileKind::Scenario) {
        let spec = library.scenario(&entry.name, &NoFiles).map_err(|errors| errors.to_string())?;
        let made_for = match &spec.platform {
            Some(own) => format!("its own `{}`", own.name),
            None => spec.runs_on.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        let (title, description) = (cell(&entry.title), cell(&entry.description));
        put(&mut page, &format!("| `{}` | {title} | {made_for} | {description} |", entry.name));
    }

    put(&mut page, "\n## Platforms\n\n| platform | title | processors | what it is |\n|---|---|---|---|");
    for entry in library.entries(FileKind::Platform) {
        let spec = library.platform(&entry.name, &NoFiles).map_err(|errors| errors.to_string())?;
        let processors = spec.processor.iter().map(|processor| match processor.count {
            1 => format!("`{}`", processor.name),
            count => format!("{count} × `{}`", processor.name),
        });
        let processors = processors.collect::<Vec<_>>().join(", ");
        let (title, description) = (cell(&entry.title), cell(&entry.description));
        put(&mut page, &format!("| `{}` | {title} | {processors} | {description} |", entry.name));
    }

    put(&mut page, "\n## Models\n\n| model | title | task | shape |\n|---|---|---|---|");
    for (name, model) in library.models() {
        let shape = match model.shape {
            ModelShape::OneShot => "one shot",
            ModelShape::Streaming => "streaming",
            ModelShape::Iterative => "iterative",
            ModelShape::Autoregressive => "autoregressive",
        };
        put(&mut page, &format!("| `{name}` | {} | {} | {shape} |", cell(&model.title), cell(&model.task)));
    }
    Ok(page)
}

fn put(page: &mut String, line: &str) {
    page.push_str(line);
    page.push('\n');
}
