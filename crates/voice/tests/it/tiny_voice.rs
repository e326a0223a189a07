//! A folder with the files of a voice, small enough to be made by a test.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use onbeat_onnx::{Attr, Builder, Dim, ElementType};

/// Removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const GOLD: &str = r#"{"hello":"həlˈO","world":"wˈɜɹld","the":"ði","cat":"kˈæt","walk":"wˈɔk","make":"mˈAk",
    "read":{"DEFAULT":"ɹˈid","VBD":"ɹˈɛd"},"apple":"ˈæpᵊl","to":"tˈu","and":"ænd","point":"pˈYnt","percent":"pəɹsˈɛnt",
    "dollar":"dˈɑləɹ","cent":"sˈɛnt","nine":"nˈIn","ninety":"nˈInTi","nineteen":"nˌIntˈin","three":"θɹˈi","third":"θˈɜɹd",
    "twenty":"twˈɛnti","seven":"sˈɛvən","A":"ˈA","B":"bˈi","C":"sˈi","work":"wˈɜɹk"}"#;
const TAGGER: &str = r#"{"tags":["$",",",".","CD","DT","NN","PRP","TO","VBD"],
    "tagdict":{"$":"$",",":",",".":".","!":".","?":".","the":"DT","a":"DT","I":"PRP","walked":"VBD","to":"TO"},
    "vocab":["i"],"weights":{"w-1=i":{"VBD":2.0},"sh=d":{"CD":1.0},"sh=d.dd":{"CD":1.0},"sh=dxx":{"NN":1.0}}}"#;
const NORMALISE: &str = r#"{"months":{},"titles":{"Dr":"Doctor"},"abbreviations":{},"units":{"km":["kilometer","kilometers"]},
    "symbols":{},"currency":{},"roman_cardinal":[],"roman_ordinal":[]}"#;

/// Makes the folder. Its network speaks every phoneme for one frame: 200 Hz at an amplitude of 0.1, without noise. Its network for unknown
/// words reads each letter from a to z as itself.
pub(crate) fn folder() -> Folder {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("onbeat-voice-{}-{count}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let letters: Vec<String> = ('a'..='z').map(|letter| format!("\"{letter}\"")).collect();
    let alphabets = format!(r#"{{"in":[{0}],"out":[{0}],"maxlen":8}}"#, letters.join(","));
    let phonemes = "abcdefghijklmnopqrstuvwxyzAIOQWYæɑɒɔəɛɜɪʊʌᵻᵊɡɹɾʃʒʤʧθðŋˈˌ ,.!?—";
    let symbols: Vec<String> = phonemes.chars().zip(1..).map(|(c, number)| format!("\"{c}\":{number}")).collect();
    let write = |name: &str, content: &[u8]| fs::write(folder.join(name), content).unwrap();
    write("lexicon_us_gold.json.gz", &packed(GOLD));
    write("lexicon_us_silver.json.gz", &packed(r#"{"wombat":"wˈɑmbˌæt"}"#));
    write("tagger.json.gz", &packed(TAGGER));
    write("tokenizer_exceptions.json", r#"{"don't":["do","n't"]}"#.as_bytes());
    write("normalize.json", NORMALISE.as_bytes());
    write("vocab.json", format!("{{{}}}", symbols.join(",")).as_bytes());
    write("oov.json", alphabets.as_bytes());
    write("oov.onnx", &letters_network());
    write("hibari.onnx", &network(&["lh", "theta", "ln", "lr", "phi"]));
    Folder(folder)
}

/// The network without one of its outputs.
pub(crate) fn drop_output(folder: &Path) {
    fs::write(folder.join("hibari.onnx"), network(&["lh", "theta", "ln", "lr"])).unwrap();
}

fn packed(text: &str) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(text.as_bytes()).unwrap();
    packer.finish().unwrap()
}

fn letters_network() -> Vec<u8> {
    let mut g = Builder::new("letters", 17);
    let shape = [Dim::Fixed(1), Dim::Free("L".into())];
    let letters = g.input("chars", ElementType::I64, &shape);
    let zero = g.i64("zero", &[1], vec![0]);
    let same = g.node("Add", &[&letters, &zero], &[]);
    g.output_named(&same, "ids", ElementType::I64, &shape);
    g.finish()
}

fn network(spectra: &[&str]) -> Vec<u8> {
    let mut g = Builder::new("voice", 17);
    let ids = g.input("ids", ElementType::I64, &[Dim::Fixed(1), Dim::Free("L".into())]);
    let speed = g.input("speed", ElementType::F32, &[Dim::Fixed(1)]);
    let numbers = g.node("Cast", &[&ids], &[("to", Attr::Int(1))]);
    let zero = g.f32("zero", &[1], vec![0.0]);
    let zeros = g.node("Mul", &[&numbers, &zero], &[]);
    // The pitch follows the speed, so that a test can hear it.
    let pitch = g.f32("pitch", &[1], vec![200.0]);
    let pitch = g.node("Mul", &[&pitch, &speed], &[]);
    let f0 = g.node("Add", &[&zeros, &pitch], &[]);
    let axis = g.i64("axis", &[1], vec![1]);
    let zeros = g.node("Unsqueeze", &[&zeros, &axis], &[]);
    for name in spectra {
        let harmonic = |bin: usize| *name == "lh" && (9..=11).contains(&bin);
        let value = |bin: usize| match *name {
            _ if harmonic(bin) => 30_f32.ln(), // 300 times the amplitude: half the sum of the window.
            "theta" | "phi" => 0.0,
            _ => -40.0,
        };
        let table = g.f32(&format!("{name}_table"), &[1, 601, 1], (0..601).map(value).collect());
        let spectrum = g.node("Add", &[&zeros, &table], &[]);
        let shape = [Dim::Fixed(1), Dim::Fixed(601), Dim::Free("F".into())];
        g.output_named(&spectrum, name, ElementType::F32, &shape);
    }
    g.output_named(&f0, "f0", ElementType::F32, &[Dim::Fixed(1), Dim::Free("F".into())]);
    g.finish()
}
