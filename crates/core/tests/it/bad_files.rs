//! Mistakes that people make, each with its exact message.

use std::fmt::Write;
use std::io;

use onbeat_core::spec::{Library, NoFiles, Options};

use crate::mistakes::{GOOD, MISTAKES};

/// Mistakes on the command line: the change of the good file.
const OVERRIDES: &[&str] = &[
    "stream.camera.fps=fast",
    "stream.camera.fps=-1",
    "stream.camera.fsp=15",
    "stream.camra.fps=15",
    "stream.camera.period_ms=15",
    "stream[7].fps=15",
    "fps",
    "chain.answer.stage.think.prompt={ kind = \"uniform\", low = 9, high = 1 }",
    "platform.memory.bandwith_gbps=10",
];

fn files(path: &str) -> io::Result<String> {
    match path {
        "damaged.csv" => Ok("TIMESTAMP,ContextTokens,GeneratedTokens\n0.0,10,5\n1.0,ten,5\n".to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "not found")),
    }
}

fn message(text: &str, options: &Options) -> String {
    match Library::shipped().resolve_text("bad.toml", text, None, options, &files) {
        Ok(system) => panic!("no mistake found; warnings: {:?}", system.warnings),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn the_good_file_is_good() {
    let system = Library::shipped().resolve_text("good.toml", GOOD, None, &Options::default(), &NoFiles);
    let system = system.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(system.warnings, Vec::<String>::new());
}

#[test]
fn each_mistake_has_its_message() {
    let mut all = String::new();
    for (name, old, new) in MISTAKES {
        assert_eq!(GOOD.matches(old).count(), 1, "{name}: the mistake is made in one place");
        let mut text = message(&GOOD.replacen(old, new, 1), &Options::default());
        // The list of shipped platforms grows; the message that names them need not change here.
        if let Some(list) = text.find(" allowed: `").filter(|_| text.contains("unknown platform")) {
            text.truncate(list);
        }
        writeln!(all, "# {name}\n{text}\n").unwrap();
    }
    insta::assert_snapshot!("messages", all);
}

#[test]
fn each_wrong_override_has_its_message() {
    let mut all = String::new();
    for change in OVERRIDES {
        let options = Options { overrides: vec![(*change).to_owned()], ..Options::default() };
        writeln!(all, "{}\n", message(GOOD, &options)).unwrap();
    }
    insta::assert_snapshot!("overrides", all);
}

#[test]
fn figures_outside_of_scenarios_need_sources() {
    let profile = "platform = 'toy'\n[model.x]\nweights_mb = 3\n[[cost]]\nmodel = 'x'\nprocessor = 'npu'\nlatency_ms = 1\n\
                   provenance = { energy = 'lab', energy_mj = 'lab' }\n[source.lab]\nkind = 'measured'\n";
    let platform = "name = 'bare'\nmemory = { capacity_gb = 4, provenance = { capacity_gb = 'lab' } }\n\
                    processor = [{ name = 'npu', kind = 'npu', idle_w = 1 }]\n";
    let files = |path: &str| match path {
        "p.toml" => Ok(profile.to_owned()),
        "bare.toml" => Ok(platform.to_owned()),
        _ => files(path),
    };
    let options = Options { profiles: vec!["p.toml".to_owned()], ..Options::default() };
    let library = Library::shipped();
    let with_profile = library.resolve_text("s.toml", GOOD, None, &options, &files).unwrap_err();
    let without_platform = GOOD[..GOOD.find("[platform]").unwrap()].to_owned();
    let on_platform = library.resolve_text("s.toml", &without_platform, Some("bare.toml"), &Options::default(), &files);
    insta::assert_snapshot!("sources", format!("{with_profile}\n\n{}", on_platform.unwrap_err()));
}

#[test]
fn a_streaming_stage_has_no_choice() {
    let text =
        GOOD.replacen("detector = { weights_mb = 5", "detector = { shape = \"streaming\", weights_mb = 5", 1).replacen(
            "{ name = \"hear\", model = \"detector\" }",
            "{ name = \"hear\", model = \"detector\", variants = \"any\" }",
            1,
        );
    let message = message(&text, &Options::default());
    assert!(message.contains("the state that one variant leaves is of no use to another"), "{message}");
}
