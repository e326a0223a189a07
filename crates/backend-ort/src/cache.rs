//! Networks that a provider has compiled, kept as files so that the next start is quick.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What a compiled network depends on. The name of its file is a hash of all of it.
#[derive(Debug, Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Adds a text.
    pub(crate) fn text(mut self, text: &str) -> Self {
        // The length keeps "ab", "c" from being the same as "a", "bc".
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds bytes.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// Adds a file by its name, size and time of change: enough to notice that another version was installed.
    pub(crate) fn stamp(self, path: &Path) -> Self {
        let data = fs::metadata(path);
        let (size, changed) = data.map_or((0, None), |data| (data.len(), data.modified().ok()));
        self.text(&format!("{} {size} {changed:?}", path.display()))
    }

    /// Where the compiled network lies in a folder.
    pub(crate) fn entry(self, folder: &Path, name: &str) -> Entry {
        let hash = self.0.finalize().iter().take(16).fold(String::new(), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        let part = |extension: &str| folder.join(format!("{name}-{hash}.{extension}"));
        Entry { compiled: part("onnx"), none: part("none"), partial: part(&format!("{}.part", std::process::id())) }
    }
}

/// A place in the folder for one compiled network.
#[derive(Debug)]
pub(crate) struct Entry {
    compiled: PathBuf,
    none: PathBuf,
    partial: PathBuf,
}

impl Entry {
    /// The compiled network, if it is there.
    pub(crate) fn find(&self) -> Option<&Path> {
        self.compiled.is_file().then_some(self.compiled.as_path())
    }

    /// Whether the provider has nothing to keep for this network.
    pub(crate) fn is_none(&self) -> bool {
        self.none.exists()
    }

    /// Keeps what `compile` writes. A provider that has compiled nothing into the network is remembered, not asked again. Whatever
    /// cannot be written is not kept: the network is then compiled at the next start.
    pub(crate) fn keep(&self, compile: impl FnOnce(&Path) -> bool) {
        let _ = self.compiled.parent().map(fs::create_dir_all);
        if compile(&self.partial) {
            // Under its name only when it is whole.
            let kept = match contains(&self.partial, b"EPContext") {
                Ok(true) => fs::rename(&self.partial, &self.compiled),
                Ok(false) => fs::write(&self.none, ""),
                Err(error) => Err(error),
            };
            drop(kept);
        }
        let _ = fs::remove_file(&self.partial);
    }

    /// Forgets what is there.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_file(&self.compiled);
    }
}

/// Whether a file contains a word. The operator that holds a provider's compiled part has this name.
fn contains(path: &Path, word: &[u8]) -> io::Result<bool> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    let mut kept = 0;
    loop {
        let count = file.read(&mut buffer[kept..])?;
        if count == 0 {
            return Ok(false);
        }
        let end = kept + count;
        if buffer[..end].windows(word.len()).any(|window| window == word) {
            return Ok(true);
        }
        // The word may lie across the border.
        kept = (word.len() - 1).min(end);
        buffer.copy_within(end - kept..end, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("onbeat-ort-cache-{name}-{}", std::process::id()))
    }

    #[test]
    fn other_texts_and_other_borders_give_other_files() {
        let file = |texts: &[&str]| {
            let key = texts.iter().fold(Key::default(), |key, text| key.text(text));
            key.entry(Path::new("x"), "n").compiled
        };
        assert_eq!(file(&["ab", "c"]), file(&["ab", "c"]));
        assert_ne!(file(&["ab", "c"]), file(&["a", "bc"]));
    }

    #[test]
    fn only_whole_compiled_networks_are_kept() {
        let folder = folder("keep");
        let entry = |name: &str| Key::default().entry(&folder, name);
        // Compiled: the word lies across the border of what is read at once.
        let mut text = vec![b'.'; (1 << 16) - 4];
        text.extend(b"EPContext");
        entry("yes").keep(|path| fs::write(path, &text).is_ok());
        assert!(entry("yes").find().is_some());
        // Nothing to compile.
        entry("no").keep(|path| fs::write(path, "Conv").is_ok());
        assert!(entry("no").find().is_none() && entry("no").is_none());
        // Failed half-way.
        entry("half").keep(|path| {
            fs::write(path, "EPContext").unwrap();
            false
        });
        assert!(entry("half").find().is_none() && !entry("half").is_none());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        entry("yes").forget();
        assert!(entry("yes").find().is_none());
        fs::remove_dir_all(&folder).unwrap();
    }
}
