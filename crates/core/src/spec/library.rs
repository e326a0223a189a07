//! The shipped platforms, profiles, models and scenarios, and how names and paths find them.

use std::sync::{LazyLock, OnceLock};

use include_dir::{Dir, include_dir};

use crate::system::System;

use super::document::Document;
use super::error::{SpecError, SpecErrors};
use super::field::Field;
use super::files::{NoFiles, ReadFile, is_path};
use super::overrides::Override;
use super::resolve::{self, Options, Parts};
use super::{ModelSpec, PlatformSpec, ProfileSpec, ScenarioSpec};
use crate::suggest;

static PLATFORMS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../library/platforms");
static PROFILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../library/profiles");
static MODELS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../library/models");
static SCENARIOS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../library/scenarios");

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A chip.
    Platform,
    /// Models and their costs.
    Profile,
    /// What must run together.
    Scenario,
}

impl FileKind {
    /// The name as people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Profile => "profile",
            Self::Scenario => "scenario",
        }
    }

    /// How to tell the kinds of files, for messages.
    pub const TOLD_BY: &str = "a scenario has `[[stream]]` or `[[session]]`, a platform `[[processor]]`, a profile `[[cost]]` or `[model.NAME]`";

    /// The kind that a file looks like, by the tables that it has; `None` if it has none that tell.
    pub fn of(document: &Document) -> Option<Self> {
        let any = |keys: &[&str]| keys.iter().any(|key| document.has(&Field::root().key(key)));
        if any(&["processor", "memory"]) {
            Some(Self::Platform)
        } else if any(&["duration_s", "stream", "session", "chain", "runs_on"]) {
            Some(Self::Scenario)
        } else if any(&["cost", "model"]) {
            Some(Self::Profile)
        } else {
            None
        }
    }

    fn folder(self) -> (&'static str, &'static Dir<'static>) {
        match self {
            Self::Platform => ("library/platforms", &PLATFORMS),
            Self::Profile => ("library/profiles", &PROFILES),
            Self::Scenario => ("library/scenarios", &SCENARIOS),
        }
    }
}

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name by which it is called.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// What it is, in one line.
    pub description: String,
}

/// The shipped files.
#[derive(Debug)]
pub struct Library {
    /// Profiles and models, read once.
    costs: OnceLock<Vec<Result<(Document, ProfileSpec), SpecErrors>>>,
}

static LIBRARY: LazyLock<Library> = LazyLock::new(|| Library { costs: OnceLock::new() });

impl Library {
    /// What this build ships.
    pub fn shipped() -> &'static Self {
        &LIBRARY
    }

    /// Names of the shipped files of a kind, in alphabetical order.
    pub fn names(&self, kind: FileKind) -> Vec<&'static str> {
        let (_, folder) = kind.folder();
        let mut names: Vec<&str> = folder
            .files()
            .filter_map(|file| file.path().to_str())
            .filter_map(|path| path.strip_suffix(".toml"))
            .collect();
        names.sort_unstable();
        names
    }

    /// The text of a shipped file.
    pub fn text(&self, kind: FileKind, name: &str) -> Option<&'static str> {
        let (_, folder) = kind.folder();
        folder.get_file(format!("{name}.toml"))?.contents_utf8()
    }

    /// The shipped platforms or scenarios, each with a one-line description; profiles by their platform.
    pub fn entries(&self, kind: FileKind) -> Vec<Entry> {
        let described = |name: &str| -> Option<(String, String)> {
            match kind {
                FileKind::Platform => self.platform(name, &NoFiles).ok().map(|spec| (spec.title, spec.description)),
                FileKind::Scenario => self.scenario(name, &NoFiles).ok().map(|spec| (spec.title, spec.description)),
                FileKind::Profile => None,
            }
        };
        let entry = |name: &str| {
            let (title, description) = described(name).unwrap_or_default();
            Entry { name: name.to_owned(), title, description: first_sentence(&description) }
        };
        self.names(kind).into_iter().map(entry).collect()
    }

    /// All shipped models in alphabetical order; of several of one name the first.
    pub fn models(&self) -> Vec<(&str, &ModelSpec)> {
        let files = self.costs().iter().flatten();
        let mut models: Vec<(&str, &ModelSpec)> =
            files.flat_map(|(_, spec)| spec.model.iter().map(|(name, model)| (name.as_str(), model))).collect();
        models.sort_by_key(|&(name, _)| name);
        models.dedup_by_key(|&mut (name, _)| name);
        models
    }

    /// A platform by name or path.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn platform(&self, name: &str, files: &dyn ReadFile) -> Result<PlatformSpec, SpecErrors> {
        self.document(FileKind::Platform, name, files)?.read()
    }

    /// A profile by name or path.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn profile(&self, name: &str, files: &dyn ReadFile) -> Result<ProfileSpec, SpecErrors> {
        self.document(FileKind::Profile, name, files)?.read()
    }

    /// A scenario by name or path.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn scenario(&self, name: &str, files: &dyn ReadFile) -> Result<ScenarioSpec, SpecErrors> {
        self.document(FileKind::Scenario, name, files)?.read()
    }

    /// The scenario on the platform; both by name or path. Without a platform: the scenario's own, or the first that it names in
    /// `runs_on`.
    ///
    /// # Errors
    /// All mistakes that can be told apart.
    pub fn resolve(
        &self,
        scenario: &str,
        platform: Option<&str>,
        options: &Options,
        files: &dyn ReadFile,
    ) -> Result<System, SpecErrors> {
        self.resolve_document(self.document(FileKind::Scenario, scenario, files)?, platform, options, files)
    }

    /// Like [`Library::resolve`], for a scenario given as text. `file` is what messages call it; traces are relative to it.
    ///
    /// # Errors
    /// All mistakes that can be told apart.
    pub fn resolve_text(
        &self,
        file: &str,
        text: &str,
        platform: Option<&str>,
        options: &Options,
        files: &dyn ReadFile,
    ) -> Result<System, SpecErrors> {
        self.resolve_document(Document::parse(file, text)?, platform, options, files)
    }

    fn resolve_document(
        &self,
        mut document: Document,
        platform: Option<&str>,
        options: &Options,
        files: &dyn ReadFile,
    ) -> Result<System, SpecErrors> {
        let overrides = options.overrides.iter().map(|text| Override::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let own_platform = platform.is_none() && document.has(&Field::root().key("platform"));
        let (for_platform, for_scenario): (Vec<_>, Vec<_>) =
            overrides.iter().partition(|change| change.starts_with("platform") && !own_platform);
        for change in for_scenario {
            document.set(change)?;
        }
        let scenario: ScenarioSpec = document.read()?;

        let (platform_document, platform_spec) = match &scenario.platform {
            Some(own) if own_platform => (document.clone(), own.clone()),
            _ => {
                let first = scenario.runs_on.first().map(String::as_str);
                let Some(name) = platform.or(first) else { return Err(no_platform(&document)) };
                if platform.is_none()
                    && let Some((problem, help)) = self.unknown(FileKind::Platform, name)
                {
                    // The name stands in the scenario.
                    return Err(document.error(&Field::root().key("runs_on").index(0), problem, Some(help)).into());
                }
                let mut named = self.document(FileKind::Platform, name, files)?;
                for change in for_platform {
                    named.set(&change.within_first())?;
                }
                let spec = named.read()?;
                (named, spec)
            }
        };
        let own = ProfileSpec {
            platform: None,
            model: scenario.model.clone(),
            cost: scenario.cost.clone(),
            source: scenario.source.clone(),
        };
        let mut users = Vec::new();
        // Later files take precedence.
        for path in options.profiles.iter().rev() {
            let document = self.document(FileKind::Profile, path, files)?;
            let spec = document.read()?;
            users.push((document, spec));
        }
        let shipped: Vec<&(Document, ProfileSpec)> = self.costs().iter().flatten().collect();
        let parts = Parts {
            document: &document,
            scenario: &scenario,
            own: &own,
            platform_document: &platform_document,
            platform: &platform_spec,
            platform_inline: own_platform,
            users: &users,
            shipped: &shipped,
            files,
        };
        resolve::resolve(parts, options)
    }

    /// A file by name or path.
    fn document(&self, kind: FileKind, name: &str, files: &dyn ReadFile) -> Result<Document, SpecErrors> {
        if is_path(name) {
            let text = files.read(name).map_err(|error| {
                SpecError::elsewhere(name, "", format!("the {} cannot be read: {error}", kind.name()), None)
            })?;
            let document = Document::parse(name, &text)?;
            return match FileKind::of(&document) {
                Some(other) if other != kind => {
                    let problem = format!("this looks like a {}, and a {} is needed", other.name(), kind.name());
                    Err(SpecError::elsewhere(name, "", problem, Some(FileKind::TOLD_BY.to_owned())).into())
                }
                _ => Ok(document),
            };
        }
        if let Some((problem, help)) = self.unknown(kind, name) {
            return Err(SpecError::elsewhere("", "", problem, Some(help)).into());
        }
        Document::parse(&format!("{}/{name}.toml", kind.folder().0), self.text(kind, name).unwrap_or_default())
    }

    /// What is wrong with a name that is no path and of which nothing is shipped, and what would be right.
    fn unknown(&self, kind: FileKind, name: &str) -> Option<(String, String)> {
        if is_path(name) || self.text(kind, name).is_some() {
            return None;
        }
        let names = suggest::help(name, self.names(kind));
        let help = format!("{names}; a path has a slash or ends with .toml");
        Some((format!("unknown {} `{name}`", kind.name()), help))
    }

    /// All shipped profiles and models: those of `library/models` first.
    fn costs(&self) -> &[Result<(Document, ProfileSpec), SpecErrors>] {
        self.costs.get_or_init(|| {
            let folders = [("library/models", &MODELS), ("library/profiles", &PROFILES)];
            let mut files = Vec::new();
            for (folder, dir) in folders {
                let mut paths: Vec<_> =
                    dir.files().filter(|file| file.path().extension().is_some_and(|e| e == "toml")).collect();
                paths.sort_by_key(|file| file.path());
                for file in paths {
                    let name = format!("{folder}/{}", file.path().display());
                    let read = Document::parse(&name, file.contents_utf8().unwrap_or(""))
                        .and_then(|document| document.read().map(|spec| (document, spec)));
                    files.push(read);
                }
            }
            files
        })
    }
}

impl System {
    /// A system from the text of a scenario that has its platform inline or names shipped ones in `runs_on`. For tests and examples.
    ///
    /// # Errors
    /// All mistakes that can be told apart.
    pub fn from_toml(scenario: &str) -> Result<Self, SpecErrors> {
        Library::shipped().resolve_text("scenario.toml", scenario, None, &Options::default(), &NoFiles)
    }
}

/// The mistake that no platform is named anywhere.
fn no_platform(document: &Document) -> SpecErrors {
    let help = "name one, list it in `runs_on`, or add a `[platform]` to the scenario".to_owned();
    SpecError::elsewhere(document.file(), "platform", "there is no platform", Some(help)).into()
}

/// The first sentence of a text, in one line.
fn first_sentence(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.find(". ") {
        Some(end) => line[..=end].to_owned(),
        None => line,
    }
}
