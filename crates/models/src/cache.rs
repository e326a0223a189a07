//! The folder that fetched models lie in.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use onbeat_backend::Control;

use crate::error::Error;

/// The folder that fetched models lie in: `models/NAME/FILE`, with `converted` for the user's own files, and `tmp` and `lock` for
/// work in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

/// Values of the environment variables that say where the cache folder lies. Empty values count as absent.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `ONBEAT_CACHE`: the folder itself.
    pub onbeat_cache: Option<OsString>,
    /// `XDG_CACHE_HOME`: the folder that holds the folder `onbeat`.
    pub xdg_cache_home: Option<OsString>,
    /// `LOCALAPPDATA`, on Windows: likewise.
    pub local_app_data: Option<OsString>,
    /// `HOME`: the folder that holds `.cache/onbeat`.
    pub home: Option<OsString>,
}

impl Environment {
    /// The values of this process, with `get` being [`std::env::var_os`].
    pub fn read(get: impl Fn(&str) -> Option<OsString>) -> Self {
        Self {
            onbeat_cache: get("ONBEAT_CACHE"),
            xdg_cache_home: get("XDG_CACHE_HOME"),
            local_app_data: get("LOCALAPPDATA"),
            home: get("HOME"),
        }
    }
}

impl Cache {
    /// A cache in this folder, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache that the environment names: `ONBEAT_CACHE`, else `onbeat` in `XDG_CACHE_HOME`, else in `LOCALAPPDATA`, else in
    /// `.cache` in `HOME`. As the XDG specification says, a relative `XDG_CACHE_HOME` is ignored.
    ///
    /// # Errors
    /// [`Error::NoCacheFolder`] if none of them is set.
    pub fn locate(environment: &Environment) -> Result<Self, Error> {
        let path = |value: &Option<OsString>| value.as_ref().filter(|value| !value.is_empty()).map(PathBuf::from);
        let absolute = |value| path(value).filter(|path| path.is_absolute());
        if let Some(root) = path(&environment.onbeat_cache) {
            return Ok(Self { root });
        }
        let parent = absolute(&environment.xdg_cache_home)
            .or_else(|| absolute(&environment.local_app_data))
            .or_else(|| absolute(&environment.home).map(|home| home.join(".cache")));
        parent.map(|parent| Self { root: parent.join("onbeat") }).ok_or(Error::NoCacheFolder)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a model, whether it is there or not.
    pub fn folder(&self, model: &str) -> PathBuf {
        self.root.join("models").join(model)
    }

    /// The folder for what users' own files are converted to.
    pub(crate) fn converted(&self) -> PathBuf {
        self.root.join("converted")
    }

    /// Keeps other processes from changing the cache until the file is closed, and clears away what interrupted ones have left.
    pub(crate) fn lock(&self, control: &Control, mut waiting: impl FnMut()) -> Result<Lock, Error> {
        create_folder(&self.root)?;
        let path = self.root.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|source| Error::file("open", &path, source))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(Error::file("lock", &path, source)),
                Err(TryLockError::WouldBlock) => {}
            }
            if control.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if !said {
                waiting();
                said = true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let lock = Lock { tmp: self.root.join("tmp"), _file: file };
        lock.clear()?;
        Ok(lock)
    }
}

/// Proof that this process alone changes the cache.
#[derive(Debug)]
pub(crate) struct Lock {
    tmp: PathBuf,
    _file: File,
}

impl Lock {
    fn clear(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.tmp) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", &self.tmp, source))
            }
            _ => Ok(()),
        }
    }

    /// An empty folder for work in progress, on the same file system as the models, so that files can be renamed into place.
    pub(crate) fn empty_folder(&self) -> Result<PathBuf, Error> {
        self.clear()?;
        create_folder(&self.tmp)?;
        Ok(self.tmp.clone())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What could not be removed now is removed by the next process that locks.
        let _ = self.clear();
    }
}

pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::file("create the folder", path, source))
}

/// Puts a finished file into its place, over an older one, so that no reader ever sees a part of it.
pub(crate) fn put_in_place(from: &Path, to: &Path) -> Result<(), Error> {
    let file = File::options().write(true).open(from);
    file.and_then(|file| file.sync_all()).map_err(|source| Error::file("write", from, source))?;
    fs::rename(from, to).map_err(|source| Error::file("write", to, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locate(onbeat: &str, xdg: &str, home: &str) -> Result<Cache, Error> {
        let value = |text: &str| Some(OsString::from(text));
        Cache::locate(&Environment {
            onbeat_cache: value(onbeat),
            xdg_cache_home: value(xdg),
            local_app_data: None,
            home: value(home),
        })
    }

    #[cfg(unix)]
    #[test]
    fn the_most_specific_variable_wins() {
        assert_eq!(locate("/o", "/x", "/h").unwrap().root(), Path::new("/o"));
        assert_eq!(locate("relative", "/x", "/h").unwrap().root(), Path::new("relative"));
        assert_eq!(locate("", "/x", "/h").unwrap().root(), Path::new("/x/onbeat"));
        assert_eq!(locate("", "relative", "/h").unwrap().root(), Path::new("/h/.cache/onbeat"));
        assert_eq!(locate("", "", "/h").unwrap().folder("m"), Path::new("/h/.cache/onbeat/models/m"));
        assert!(matches!(locate("", "", ""), Err(Error::NoCacheFolder)));
        assert!(matches!(Cache::locate(&Environment::default()), Err(Error::NoCacheFolder)));
    }

    #[test]
    fn one_process_at_a_time_changes_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let control = Control::new();
        let lock = cache.lock(&control, || panic!("nobody else is there")).unwrap();
        let leftover = lock.empty_folder().unwrap().join("part");
        fs::write(&leftover, "x").unwrap();
        let mut waited = 0;
        let second = cache.lock(&control, || {
            waited += 1;
            control.cancel();
        });
        // The callback cancels, and cancelling is looked at once per turn.
        assert!(matches!(second, Err(Error::Cancelled)));
        assert_eq!(waited, 1);
        drop(lock);
        assert!(cache.lock(&Control::new(), || panic!("nobody else is there")).is_ok());
        assert!(!leftover.exists());
    }
}
