//! Where ONNX Runtime and its plugins lie on a machine. Looks at folders only: nothing is executed, nothing is fetched.

use std::env::consts::{ARCH, DLL_PREFIX, DLL_SUFFIX, OS};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::backend::Config;
use crate::provider::{PROVIDERS, Provider};

/// Reads an environment variable; tests give their own.
pub(crate) type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A plugin library that was found or named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The name to register it under.
    pub(crate) name: String,
    /// The library.
    pub(crate) path: PathBuf,
}

/// What the caller and the environment say about where to look.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Library that was named: that one or none.
    named: Option<PathBuf>,
    /// Plugins that were named.
    plugins: Vec<(String, PathBuf)>,
    /// Folders, in order.
    folders: Vec<PathBuf>,
}

impl Places {
    pub(crate) fn new(config: &Config, variable: Variable) -> Self {
        let mut named = config.dylib.clone();
        let mut plugins = config.providers.clone();
        let mut folders = config.folders.clone();
        let listed = variable("ONBEAT_ORT").unwrap_or_default();
        for path in std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()) {
            if path.is_dir() {
                folders.push(path);
            } else if file_name(&path).is_some_and(|name| is_runtime(name, OS)) {
                named.get_or_insert(path);
            } else {
                plugins.push((plugin_name(&path), path));
            }
        }
        if let Some(path) = variable("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from) {
            named.get_or_insert(path);
        }
        let program = std::env::current_exe().ok();
        folders.extend(program.as_deref().and_then(Path::parent).map(Path::to_path_buf));
        folders.extend(["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| variable(name)).map(PathBuf::from));
        folders.extend(["HOME", "APPDATA"].iter().filter_map(|name| variable(name)).flat_map(|home| {
            let home = PathBuf::from(home);
            [home.join(".local"), home.join("Python"), home.join("Library/Python")]
        }));
        folders.extend(["/usr/local", "/opt/homebrew", "/usr", "/usr/lib/x86_64-linux-gnu"].map(PathBuf::from));
        folders.extend(["/usr/lib/aarch64-linux-gnu", "/usr/lib64"].map(PathBuf::from));
        Self { named, plugins, folders }
    }

    /// The library that was named by its file: then no other will do.
    pub(crate) fn named_library(&self) -> Option<&Path> {
        self.named.as_deref().filter(|path| !path.is_dir())
    }

    /// The libraries that may be ONNX Runtime, the likeliest first.
    pub(crate) fn libraries(&self) -> Vec<PathBuf> {
        match &self.named {
            Some(path) if path.is_dir() => libraries_below(path),
            Some(path) => vec![path.clone()],
            None => self.folders.iter().flat_map(|folder| libraries_below(folder)).collect(),
        }
    }

    /// The plugins that were named, then one of each kind that lies in a folder.
    pub(crate) fn plugins(&self) -> Vec<Candidate> {
        let named = self.plugins.iter();
        let mut list: Vec<Candidate> =
            named.map(|(name, path)| Candidate { name: full_name(name), path: path.clone() }).collect();
        let packages: Vec<PathBuf> = self.folders.iter().flat_map(|folder| package_folders(folder)).collect();
        for provider in PROVIDERS {
            let file = library_name(provider.library);
            if list.iter().any(|other| file_name(&other.path) == Some(&file)) {
                continue;
            }
            list.extend(packages.iter().find_map(|packages| plugin_in(packages, provider, &file)));
        }
        list
    }
}

/// A library's file name on this system.
pub(crate) fn library_name(stem: &str) -> String {
    format!("{DLL_PREFIX}{stem}{DLL_SUFFIX}")
}

/// The version of the Python package that a library belongs to, from the `NAME-VERSION.dist-info` folder beside the package's.
pub(crate) fn package_version(library: &Path) -> Option<String> {
    let (packages, package) = package_of(library)?;
    let names = entries(packages).into_iter().filter_map(|path| file_name(&path).map(str::to_owned));
    let mut versions = names.filter_map(|name| {
        let (found, version) = name.strip_suffix(".dist-info")?.rsplit_once('-')?;
        // Packages that differ only in what they are built for fill the same folder.
        let variant = found.strip_prefix(package)?;
        let same = ["", "_gpu", "_directml", "_windowsml", "_cu12", "_cu13"].contains(&variant);
        same.then(|| version.to_owned())
    });
    versions.next()
}

/// The folder in which Python packages lie side by side, and the name of the one that a library belongs to.
fn package_of(library: &Path) -> Option<(&Path, &str)> {
    let folder = library.parent()?;
    let folder = if folder.ends_with("onnxruntime/capi") { folder.parent()? } else { folder };
    Some((folder.parent()?, file_name(folder)?))
}

/// The version in a library's name: `libonnxruntime.so.1.31.1`, `libonnxruntime.1.31.1.dylib`.
pub(crate) fn version_in_name(path: &Path) -> Option<String> {
    let name = file_name(path)?;
    let digits = name.find(|c: char| c.is_ascii_digit())?;
    let version = name[digits..].trim_end_matches(".dylib").trim_end_matches(".so").trim_end_matches(".dll");
    version.split('.').all(|part| part.parse::<u32>().is_ok()).then(|| version.to_owned())
}

/// The provider that a plugin library holds, if it is a known one.
pub(crate) fn provider_of(library: &Path) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|known| file_name(library) == Some(&library_name(known.library)))
}

/// Libraries that have to be in memory before a plugin, in the order in which they need each other.
pub(crate) fn libraries_to_preload(plugin: &Path) -> Vec<PathBuf> {
    let Some(provider) = provider_of(plugin) else { return Vec::new() };
    let beside = plugin.parent().map(entries).unwrap_or_default();
    let mut list: Vec<PathBuf> = provider.beside.iter().flat_map(|word| beginning_with(&beside, word)).collect();
    if let (Some((packages, _)), false) = (package_of(plugin), provider.nvidia.is_empty()) {
        let parts = entries(&packages.join("nvidia"));
        let folders = parts.iter().flat_map(|part| [part.join("lib"), part.join("bin")]);
        let files: Vec<PathBuf> = folders.flat_map(|folder| entries(&folder)).collect();
        for word in provider.nvidia {
            list.extend(beginning_with(&files, &format!("{DLL_PREFIX}{word}")));
        }
    }
    list
}

fn beginning_with(files: &[PathBuf], word: &str) -> Vec<PathBuf> {
    let library = |name: &str| name.starts_with(word) && (name.contains(".so") || name.ends_with(DLL_SUFFIX));
    files.iter().filter(|path| file_name(path).is_some_and(library)).cloned().collect()
}

/// Whether a file's name is that of ONNX Runtime itself, not of one of its providers.
fn is_runtime(name: &str, os: &str) -> bool {
    match os {
        "windows" => name.eq_ignore_ascii_case("onnxruntime.dll"),
        "macos" | "ios" => name.strip_prefix("libonnxruntime.").and_then(|rest| rest.strip_suffix("dylib")).is_some(),
        _ => name.strip_prefix("libonnxruntime.so").is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
    }
}

/// ONNX Runtime libraries in a folder that may be an environment, a folder of packages, an unpacked package or a plain folder.
fn libraries_below(folder: &Path) -> Vec<PathBuf> {
    let mut list = Vec::new();
    for packages in package_folders(folder) {
        list.extend(libraries_in(&packages.join("onnxruntime/capi")));
    }
    for plain in ["", "lib", "capi"] {
        list.extend(libraries_in(&folder.join(plain)));
    }
    for node in ["bin", "onnxruntime-node/bin", "node_modules/onnxruntime-node/bin"] {
        let (system, arch) = (node_system(), node_arch());
        let interfaces = entries(&folder.join(node)).into_iter().rev();
        list.extend(interfaces.flat_map(|interface| libraries_in(&interface.join(system).join(arch))));
    }
    list
}

/// The ONNX Runtime libraries of a folder, the newest first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let runtime = |path: &PathBuf| file_name(path).is_some_and(|name| is_runtime(name, OS));
    let mut list: Vec<PathBuf> = entries(folder).into_iter().filter(runtime).collect();
    list.sort_by_key(|path| std::cmp::Reverse(version_in_name(path).map(|version| numbers(&version))));
    // Links to the same file would only be tried twice.
    list.truncate(1);
    list
}

/// Folders in which Python packages lie side by side: the folder itself, and those of the environment that it may be.
fn package_folders(folder: &Path) -> Vec<PathBuf> {
    let mut list = vec![folder.to_path_buf(), folder.join("Lib/site-packages"), folder.join("site-packages")];
    for lib in ["lib", "lib64", ""] {
        let mut versions = entries(&folder.join(lib));
        versions.retain(|path| file_name(path).is_some_and(|name| name.to_ascii_lowercase().starts_with("python3")));
        versions.sort_by_key(|path| std::cmp::Reverse(file_name(path).map(numbers)));
        // Python's own user folder on macOS and Windows: `Library/Python/3.12/lib/python/site-packages`, `Python/Python312/site-packages`.
        list.extend(versions.iter().flat_map(|path| [path.join("site-packages"), path.join("dist-packages")]));
    }
    let numbered =
        entries(folder).into_iter().filter(|path| file_name(path).is_some_and(|name| name.starts_with("3.")));
    list.extend(numbered.map(|path| path.join("lib/python/site-packages")));
    list
}

fn plugin_in(packages: &Path, provider: &Provider, file: &str) -> Option<Candidate> {
    let folder = packages.join(provider.folder);
    // Packages for several processors hold one folder for each.
    let mut folders = vec![folder.clone()];
    folders.extend(entries(&folder).into_iter().filter(|path| file_name(path).is_some_and(|name| is_arch(name, ARCH))));
    let path = folders.into_iter().map(|folder| folder.join(file)).find(|path| path.is_file())?;
    Some(Candidate { name: provider.name.to_owned(), path })
}

/// The name that a plugin is registered under if the caller has given none.
fn plugin_name(path: &Path) -> String {
    let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    provider_of(path).map_or_else(stem, |provider| provider.name.to_owned())
}

/// The full name of a known provider for the short one: some plugins take the name that they are registered under for that of
/// their provider.
fn full_name(name: &str) -> String {
    let known = PROVIDERS.iter().map(|provider| provider.name);
    let same = |full: &&str| full.trim_end_matches("ExecutionProvider").eq_ignore_ascii_case(name);
    known.into_iter().find(same).unwrap_or(name).to_owned()
}

fn is_arch(name: &str, arch: &str) -> bool {
    let words: &[&str] = if arch == "aarch64" { &["arm64", "aarch64"] } else { &["x64", "amd64", "x86_64"] };
    let name = name.to_ascii_lowercase();
    words.contains(&name.as_str()) || words.iter().any(|word| name.ends_with(&format!("_{word}")))
}

fn node_system() -> &'static str {
    match OS {
        "windows" => "win32",
        "macos" => "darwin",
        other => other,
    }
}

fn node_arch() -> &'static str {
    if ARCH == "aarch64" { "arm64" } else { "x64" }
}

/// What lies in a folder, in the order of the names; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = fs::read_dir(folder) else { return Vec::new() };
    let mut list: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    list.sort();
    list
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The numbers in a text, so that 3.12 comes after 3.9.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
