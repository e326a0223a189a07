//! What must hold for an entry of the catalogue, beyond what its types say.

use crate::catalogue::{Entry, RunsAs};
use crate::manifest::FILE_NAME;

/// What serde cannot see.
pub(crate) fn check(entry: &Entry) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !entry.name.starts_with(plain) || !entry.name.chars().all(|c| plain(c) || c == '-' || c == '.') {
        return Err("a name consists of lower-case letters, digits, `-` and `.`".to_owned());
    }
    let texts = [
        &entry.title,
        &entry.task,
        &entry.input,
        &entry.output,
        &entry.licence,
        &entry.package.name,
        &entry.package.version,
    ];
    if texts.iter().any(|text| text.trim().is_empty()) {
        return Err("a title, task, input, output, licence, package name or version is empty".to_owned());
    }
    // Both end up in a command line; neither may be taken for an option or for another kind of requirement.
    if !entry.package.version.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("version `{}` is not exact: it must begin with a digit", entry.package.version));
    }
    if !entry.package.name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '@') {
        return Err(format!("`{}` is no name of a package", entry.package.name));
    }
    if (entry.runs_as == RunsAs::File) != entry.shape.is_none() {
        return Err("`shape` is needed unless `runs_as` is `file`, and then there is none".to_owned());
    }
    if (entry.runs_as == RunsAs::Network) != entry.network.is_some() {
        return Err("`network` names the file if `runs_as` is `network`, and is absent otherwise".to_owned());
    }
    if entry.network.as_ref().is_some_and(|network| entry.files.iter().all(|file| file.name != *network)) {
        return Err("`network` is none of its files".to_owned());
    }
    if entry.files.is_empty() {
        return Err("it has no files".to_owned());
    }
    for (i, file) in entry.files.iter().enumerate() {
        if !is_file_name(&file.name) || file.name == FILE_NAME {
            return Err(format!("`{}` is no name for a file in its folder", file.name));
        }
        if entry.files[..i].iter().any(|other| other.name == file.name) {
            return Err(format!("file {} occurs twice", file.name));
        }
        let digits = file.sha256.bytes().filter(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)).count();
        if digits != 64 || file.sha256.len() != 64 {
            return Err(format!("file {}: `sha256` must be 64 lower-case hexadecimal digits", file.name));
        }
        if file.bytes == 0 {
            return Err(format!("file {}: `bytes` must be above 0", file.name));
        }
    }
    Ok(())
}

/// Whether it names a file in a folder, and nothing elsewhere, on any operating system.
pub(crate) fn is_file_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= 100 && !name.starts_with('.') && name.chars().all(allowed)
}
