//! The registries' own clients, which download packages: `pip` and `npm`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use onbeat_backend::Control;

use crate::catalogue::{Package, Registry};
use crate::error::Error;

/// The programs that download packages, as found on a search path.
#[derive(Clone, Debug)]
pub struct Clients {
    path: OsString,
}

/// How often a running download is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How much of a failed client's standard error is kept [bytes].
const STDERR_MAX: usize = 4000;

impl Clients {
    /// The programs that are found on this search path: the value of `PATH`.
    pub fn on_path(path: impl Into<OsString>) -> Self {
        Self { path: path.into() }
    }

    /// The command line that downloads packages of a registry, without the packages: `pip`, else `pip3`, else `python3 -m pip`; `npm`.
    ///
    /// # Errors
    /// [`Error::ClientMissing`] says what to install.
    pub fn command(&self, registry: Registry) -> Result<Vec<OsString>, Error> {
        let found = match registry {
            Registry::Pypi => {
                ["pip", "pip3"].iter().find_map(|name| self.find(name)).map(|pip| vec![pip.into()]).or_else(|| {
                    let python = ["python3", "python"].iter().find_map(|name| self.find(name))?;
                    Some(vec![python.into(), "-m".into(), "pip".into()])
                })
            }
            Registry::Npm => self.find("npm").map(|npm| vec![npm.into()]),
        };
        found.ok_or(match registry {
            Registry::Pypi => Error::ClientMissing {
                registry: "PyPI",
                program: "pip",
                install: "Python 3 with pip (Debian: python3-pip)",
            },
            Registry::Npm => {
                Error::ClientMissing { registry: "npm", program: "npm", install: "Node.js with npm (Debian: npm)" }
            }
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let endings: &[&str] = if cfg!(windows) { &[".exe", ".cmd", ".bat"] } else { &[""] };
        std::env::split_paths(&self.path)
            .filter(|folder| folder.is_absolute())
            .flat_map(|folder| endings.iter().map(move |ending| folder.join(format!("{name}{ending}"))))
            .find(|file| is_program(file))
    }

    /// Downloads a package into an empty folder and returns its file: a wheel or a tarball. Nothing of it is unpacked or executed.
    /// `received` is told the size of what is there, now and then [bytes].
    pub(crate) fn download(
        &self,
        package: &Package,
        folder: &Path,
        control: &Control,
        received: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, Error> {
        let mut line = self.command(package.registry)?;
        line.extend(arguments(package, folder));
        let shown = line.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let stderr = folder.with_extension("stderr");
        let log = File::create(&stderr).map_err(|source| Error::file("create", &stderr, source))?;
        let mut command = Command::new(&line[0]);
        // Clients keep what they have not finished in the temporary folder: here, it is cleared away after an interruption.
        command.args(&line[1..]).current_dir(folder).envs(["TMPDIR", "TMP", "TEMP"].map(|name| (name, folder)));
        command.env("PIP_REQUIRE_VIRTUALENV", "false").env("PIP_NO_INPUT", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let failed = |status: String, stderr: String| Error::ClientFailed { command: shown.clone(), status, stderr };
        let child = command.spawn().map_err(|error| failed("it could not be started".to_owned(), error.to_string()))?;
        let status = wait(child, folder, control, received)?;
        if !status.success() {
            let text = fs::read(&stderr).unwrap_or_default();
            let end = &text[text.len().saturating_sub(STDERR_MAX)..];
            return Err(failed(status.to_string(), String::from_utf8_lossy(end).trim().to_owned()));
        }
        only_package(package, folder)
    }
}

fn arguments(package: &Package, folder: &Path) -> Vec<OsString> {
    let Package { name, version, .. } = package;
    let mut words: Vec<OsString> = Vec::new();
    match package.registry {
        Registry::Pypi => {
            words.extend(
                ["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"].map(Into::into),
            );
            words.extend(["--progress-bar=off".into(), "--dest".into(), folder.into()]);
            if let Some(python) = &package.python {
                words.extend(["--implementation".into(), "cp".into(), "--python-version".into(), python.into()]);
            }
            if let Some(platform) = &package.platform {
                words.extend(["--platform".into(), platform.into()]);
            }
            words.push(format!("{name}=={version}").into());
        }
        Registry::Npm => {
            words.extend(["pack", "--ignore-scripts", "--loglevel=error"].map(Into::into));
            words.push(format!("{name}@{version}").into());
        }
    }
    words
}

fn wait(
    mut child: Child,
    folder: &Path,
    control: &Control,
    received: &mut dyn FnMut(u64),
) -> Result<std::process::ExitStatus, Error> {
    let failed = |source| Error::File { doing: "wait for the download".to_owned(), source };
    let mut last = 0;
    loop {
        if control.is_cancelled() {
            // It may have ended by itself in the meantime; either way it is waited for.
            let _ = child.kill();
            child.wait().map_err(failed)?;
            return Err(Error::Cancelled);
        }
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        let size = folder_size(folder, 0);
        if size > last {
            received(size);
            last = size;
        }
        thread::sleep(POLL);
    }
}

/// Size of the files below a folder, as far as they can be read: others are changing them.
fn folder_size(folder: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_file() => data.len(),
        Ok(data) if data.is_dir() && depth < 8 => folder_size(&entry.path(), depth + 1),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// The one file that the client has downloaded.
fn only_package(package: &Package, folder: &Path) -> Result<PathBuf, Error> {
    let wrong = |what: String| Error::Package { package: package.to_string(), what };
    let entries = fs::read_dir(folder).map_err(|source| Error::file("read", folder, source))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    let (Some(file), true) = (files.pop(), files.is_empty()) else {
        return Err(wrong("the client has not left exactly one file in its folder".to_owned()));
    };
    let ending = match package.registry {
        Registry::Pypi => "whl",
        Registry::Npm => "tgz",
    };
    if file.extension() != Some(OsStr::new(ending)) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(wrong(format!(
            "the client has downloaded {name}, not a .{ending}: other packages are refused, because unpacking them can run their code"
        )));
    }
    Ok(file)
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    fn line(model: &str) -> String {
        let package = &Catalogue::shipped().find(model).unwrap().package;
        let words = arguments(package, Path::new("D"));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn clients_are_asked_for_exactly_one_package_and_told_to_run_nothing() {
        assert_eq!(
            line("face-detection"),
            "download --no-deps --only-binary=:all: --disable-pip-version-check --progress-bar=off --dest D --implementation cp \
             --python-version 3.11 --platform manylinux_2_28_x86_64 mediapipe==0.10.21"
        );
        assert_eq!(line("anime4k-2x"), "pack --ignore-scripts --loglevel=error @websr/websr@0.0.15");
    }

    #[test]
    fn a_missing_client_says_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let clients = Clients::on_path(empty.path());
        let message = |registry| clients.command(registry).unwrap_err().to_string();
        assert_eq!(
            message(Registry::Pypi),
            "PyPI packages are downloaded with `pip`, which is not on the PATH: install Python 3 with pip (Debian: python3-pip)"
        );
        assert!(message(Registry::Npm).contains("install Node.js with npm"));
    }

    #[cfg(unix)]
    #[test]
    fn pip_is_preferred_and_python_is_asked_else() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let add = |name: &str, mode: u32| {
            let file = folder.path().join(name);
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            OsString::from(file)
        };
        let clients = Clients::on_path(folder.path());
        add("pip", 0o644);
        let python = add("python3", 0o755);
        assert_eq!(clients.command(Registry::Pypi).unwrap(), [python, "-m".into(), "pip".into()]);
        let pip = add("pip3", 0o755);
        assert_eq!(clients.command(Registry::Pypi).unwrap(), [pip]);
    }
}
