//! Checks of specification files that are no scenarios.

use onbeat_core::spec::{
    Document, Field, FileKind, Library, Options, PlatformSpec, ProfileSpec, ReadFile, SpecErrors, is_path,
};

use crate::args::SystemArgs;
use crate::disk::Disk;
use crate::failure::Failure;

/// A platform or profile file.
#[derive(Debug)]
pub(super) struct OtherFile {
    path: String,
    kind: FileKind,
    document: Document,
}

/// Tells platform and profile files from scenarios by what is in them.
pub(super) fn split(names: &[String]) -> Result<(Vec<OtherFile>, Vec<String>), Failure> {
    let disk = Disk::default();
    let (mut others, mut scenarios) = (Vec::new(), Vec::new());
    for name in names {
        if !is_path(name) {
            scenarios.push(name.clone());
            continue;
        }
        let text = disk.read(name).map_err(Failure::io("read", name.as_ref()))?;
        let document = Document::parse(name, &text).map_err(|errors| disk.failure(errors))?;
        let Some(kind) = FileKind::of(&document) else {
            let help = Some(FileKind::TOLD_BY.to_owned());
            let error = document.error(&Field::root(), "nothing in it says what kind of file it is", help);
            return Err(disk.failure(error.into()));
        };
        match kind {
            FileKind::Scenario => scenarios.push(name.clone()),
            _ => others.push(OtherFile { path: name.clone(), kind, document }),
        }
    }
    Ok((others, scenarios))
}

impl OtherFile {
    /// Checks the file and says what is in it.
    ///
    /// Values are checked when a scenario is resolved; the smallest one that there can be does.
    pub(super) fn check(&self, args: &SystemArgs) -> Result<String, Failure> {
        let disk = Disk::default();
        let contents = if self.kind == FileKind::Platform { self.platform() } else { self.profile(&disk) };
        let Contents { platform, processor, summary } = contents.map_err(|errors| disk.failure(errors))?;
        let mut profiles: Vec<String> = args.profiles.iter().map(|path| path.display().to_string()).collect();
        if self.kind == FileKind::Profile {
            profiles.push(self.path.clone());
        }
        let options = Options { profiles, ..Options::default() };
        let probe = probe(processor.as_deref().unwrap_or("cpu"), platform.is_none());
        let resolved = Library::shipped().resolve_text("probe.toml", &probe, platform.as_deref(), &options, &disk);
        resolved.map_err(|errors| disk.failure(errors))?;
        Ok(format!("{}: {summary}: ok", self.path))
    }

    fn platform(&self) -> Result<Contents, SpecErrors> {
        let spec: PlatformSpec = self.document.read()?;
        let names: Vec<&str> = spec.processor.iter().map(|processor| processor.name.as_str()).collect();
        let summary = format!("platform `{}` with {}", spec.name, names.join(", "));
        Ok(Contents { platform: Some(self.path.clone()), processor: first_processor(&spec), summary })
    }

    fn profile(&self, disk: &Disk) -> Result<Contents, SpecErrors> {
        let spec: ProfileSpec = self.document.read()?;
        let of = spec.platform.as_ref().map_or_else(String::new, |name| format!(" on `{name}`"));
        let summary = format!("profile with {} models and {} costs{of}", spec.model.len(), spec.cost.len());
        let platform = spec.platform.as_ref().map(|name| Library::shipped().platform(name, disk)).transpose()?;
        Ok(Contents { platform: spec.platform, processor: platform.as_ref().and_then(first_processor), summary })
    }
}

/// What a file is about.
#[derive(Debug)]
struct Contents {
    /// The platform, by name or path, that it can be checked with.
    platform: Option<String>,
    /// One of the platform's processors.
    processor: Option<String>,
    /// What is in the file.
    summary: String,
}

/// Name of the first processor: of several identical ones, the group's.
fn first_processor(platform: &PlatformSpec) -> Option<String> {
    platform.processor.first().map(|processor| processor.name.clone())
}

/// The smallest scenario that there can be.
fn probe(processor: &str, own_platform: bool) -> String {
    let platform = if own_platform {
        format!(
            "platform = {{ name = \"probe\", memory = {{}}, processor = [{{ name = \"{processor}\", kind = \"cpu\" }}] }}\n"
        )
    } else {
        String::new()
    };
    format!(
        "name = \"probe\"\nduration_s = 1\nstream = [{{ name = \"probe\", model = \"onbeat-probe\", fps = 1, source = \"probe\" }}]\n\
         model = {{ onbeat-probe = {{}} }}\n\
         cost = [{{ model = \"onbeat-probe\", processor = \"{processor}\", latency_ms = 1, source = \"probe\" }}]\n\
         {platform}[source.probe]\nkind = \"analytical\"\nformula = \"none\"\n"
    )
}
