//! How files are read: `core` itself touches no disk.

use std::io;

/// Reads the files that users name.
pub trait ReadFile {
    /// The contents of a file.
    ///
    /// # Errors
    /// If it cannot be read or is not UTF-8.
    fn read(&self, path: &str) -> io::Result<String>;
}

impl<F: Fn(&str) -> io::Result<String>> ReadFile for F {
    fn read(&self, path: &str) -> io::Result<String> {
        self(path)
    }
}

/// No files but the shipped ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl ReadFile for NoFiles {
    fn read(&self, _path: &str) -> io::Result<String> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only shipped files can be used here"))
    }
}

/// Whether a name given by a user is a path: shipped names have neither slashes nor an ending.
pub fn is_path(name: &str) -> bool {
    let ending = std::path::Path::new(name).extension();
    name.contains(['/', '\\']) || ending.is_some_and(|ending| ending.eq_ignore_ascii_case("toml"))
}

/// A path given in a file, relative to that file's folder.
pub(crate) fn beside(file: &str, path: &str) -> String {
    let absolute = path.starts_with(['/', '\\']) || path.get(1..2) == Some(":");
    match file.rfind(['/', '\\']) {
        Some(end) if !absolute => format!("{}{path}", &file[..=end]),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_file_that_names_them() {
        assert_eq!(beside("a/b.toml", "t.csv"), "a/t.csv");
        assert_eq!(beside("b.toml", "t.csv"), "t.csv");
        assert_eq!(beside("a/b.toml", "/t.csv"), "/t.csv");
        assert!(is_path("./x") && is_path("x.toml") && !is_path("video-conference"));
    }
}
