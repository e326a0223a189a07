//! The data that starts jobs.

use std::collections::BTreeMap;
use std::path::Path;

use onbeat_backend::{Audio, Data};
use onbeat_core::cost::Phase;
use onbeat_core::id::{IdVec, NodeId, SourceId};
use onbeat_core::system::{Source, System};
use onbeat_driver::Facts;
use onbeat_models::{Cache, RunsAs};
use onbeat_runtime::Feed;

use super::library::{Devices, kind_of};
use super::samples;
use crate::failure::{Failure, similar};

/// Rate of the microphone [Hz].
const MICROPHONE_HZ: u32 = 16_000;

/// The data that starts jobs: for each source a list that is gone through again and again.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    sources: BTreeMap<SourceId, Vec<Vec<Data>>>,
    stand_ins: BTreeMap<NodeId, Vec<Data>>,
}

/// What the first stages of a source's jobs work on.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    sound: bool,
    picture: bool,
    small_picture: bool,
    text: bool,
}

impl Inputs {
    /// Reads the inputs that the user gave (`SOURCE=FILE`), and takes samples for the other sources.
    pub(crate) fn prepare(system: &System, devices: &Devices, given: &[String]) -> Result<Self, Failure> {
        let kinds: IdVec<NodeId, RunsAs> = system
            .nodes
            .iter()
            .map(|node| &system.models[node.model])
            .map(|model| kind_of(&model.name, model.shape))
            .collect();
        let real = system.platform.processors.iter().any(onbeat_core::system::Processor::runs_models);
        let mut inputs = Self::default();
        if !real {
            return Ok(inputs);
        }
        let given = parse(system, given)?;
        let mut speech = None;
        for (id, source) in system.sources.enumerate() {
            let needs = needs(system, id, &kinds);
            let items = match given.get(&id) {
                Some(path) => read(Path::new(path), source)?,
                None => samples_for(needs, source, devices.cache(), &mut speech)?,
            };
            inputs.sources.insert(id, items);
        }
        for (node, &kind) in kinds.enumerate() {
            inputs.stand_ins.insert(node, samples::stand_in(kind, devices.cache()));
        }
        Ok(inputs)
    }

    /// What is known of jobs because their input is known: the prompts of sources that begin with a language model.
    pub(crate) fn facts(&self, system: &System, devices: &Devices) -> Result<Facts, Failure> {
        let mut facts = Facts::default();
        for source in system.sources.ids() {
            for node in system.nodes_of(source) {
                let spec = &system.nodes[node];
                let talks = |phases: &[(Phase, _)]| phases.iter().any(|(phase, _)| *phase == Phase::Prefill);
                let real = spec.costs.enumerate().find(|(p, cost)| {
                    cost.as_ref().is_some_and(|cost| talks(&cost.phases))
                        && system.platform.processors[*p].runs_models()
                });
                let (Some((p, _)), true) = (real, spec.before.is_empty()) else { continue };
                let failed = |error: onbeat_backend::Error| Failure::Device {
                    message: error.to_string(),
                    help: Some("`onbeat models fetch` gets what is missing".to_owned()),
                };
                let model = devices.load_early(spec.model, p).map_err(failed)?;
                let output = spec.output_max.max(spec.expected.output).max(1);
                let items = self.sources.get(&source).map(Vec::as_slice).unwrap_or_default();
                let sizes = items.iter().map(|item| model.size(item).map(|size| (size.prompt.max(1), output)));
                facts.set_source_lengths(source, node, sizes.collect::<Result<_, _>>().map_err(failed)?);
            }
        }
        Ok(facts)
    }
}

impl Feed for Inputs {
    fn data(&self, source: SourceId, index: u64) -> Vec<Data> {
        let Some(items) = self.sources.get(&source).filter(|items| !items.is_empty()) else { return Vec::new() };
        items[(index % items.len() as u64) as usize].clone()
    }

    fn stand_in(&self, node: NodeId) -> Vec<Data> {
        self.stand_ins.get(&node).cloned().unwrap_or_default()
    }
}

/// `SOURCE=FILE`, by source.
fn parse<'a>(system: &System, given: &'a [String]) -> Result<BTreeMap<SourceId, &'a str>, Failure> {
    let mut parsed = BTreeMap::new();
    for text in given {
        let Some((name, path)) = text.split_once('=') else {
            return Err(Failure::usage(format!("--input {text}: no `=`"), "give SOURCE=FILE, such as camera=me.png"));
        };
        let Some((id, _)) = system.sources.enumerate().find(|(_, source)| source.name == name) else {
            let names: Vec<&str> = system.sources.iter().map(|source| source.name.as_str()).collect();
            let close = similar(name, names.iter().copied());
            let meant = close.first().map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
            return Err(Failure::usage(
                format!("--input {text}: `{}` has no stream or session `{name}`", system.scenario),
                format!("{meant}it has {}", names.join(", ")),
            ));
        };
        parsed.insert(id, path);
    }
    Ok(parsed)
}

/// A user's file as items of a source.
fn read(path: &Path, source: &Source) -> Result<Vec<Vec<Data>>, Failure> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let wrong = |error: onbeat_backend::Error| Failure::Device { message: error.to_string(), help: None };
    match extension.as_str() {
        "wav" => Ok(chunks(&onbeat_speech::wav::read(path).map_err(wrong)?, source)),
        "png" | "jpg" | "jpeg" => Ok(vec![vec![Data::Image(samples::read_picture(path).map_err(wrong)?)]]),
        "txt" | "md" => {
            let text = std::fs::read_to_string(path).map_err(Failure::io("read", path))?;
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            Ok(lines.map(|line| vec![Data::Text(line.into())]).collect())
        }
        _ => Err(Failure::usage(
            format!("{}: not a kind of file that inputs can be read from", path.display()),
            "give a .wav, .png, .jpg or .txt file",
        )),
    }
}

fn needs(system: &System, source: SourceId, kinds: &IdVec<NodeId, RunsAs>) -> Needs {
    let mut needs = Needs::default();
    // Not only the first stages: later ones look for what the source released if the stages before give something else.
    for node in system.nodes_of(source) {
        match kinds[node] {
            RunsAs::Vad | RunsAs::Denoiser | RunsAs::Whisper => needs.sound = true,
            RunsAs::Language | RunsAs::Voice => needs.text |= system.nodes[node].before.is_empty(),
            RunsAs::Segmentation | RunsAs::FaceDetection | RunsAs::FaceLandmark => needs.picture = true,
            RunsAs::SuperResolution => needs.small_picture = true,
            RunsAs::Network | RunsAs::File => {}
        }
    }
    needs
}

/// Samples for a source: sound in chunks of its period, or, for sessions, whole questions.
fn samples_for(
    needs: Needs,
    source: &Source,
    cache: &Cache,
    speech: &mut Option<Vec<Audio>>,
) -> Result<Vec<Vec<Data>>, Failure> {
    let mut items: Vec<Vec<Data>> = Vec::new();
    if needs.sound {
        if speech.is_none() {
            *speech = Some(super::speech::questions(cache)?);
        }
        let questions = speech.iter().flatten();
        items = if source.session {
            questions.map(|question| vec![Data::Audio(question.clone())]).collect()
        } else {
            questions.flat_map(|question| chunks(question, source)).collect()
        };
    }
    if needs.text && !needs.sound {
        items = samples::QUESTIONS.iter().map(|&question| vec![Data::Text(question.into())]).collect();
    }
    let picture = needs.picture.then(|| samples::picture(cache));
    let small = needs.small_picture.then(|| samples::small(&samples::picture(cache), 320, 180));
    if items.is_empty() && (picture.is_some() || small.is_some()) {
        items.push(Vec::new());
    }
    for item in &mut items {
        item.extend(picture.iter().chain(&small).map(|picture| Data::Image(picture.clone())));
    }
    Ok(items)
}

/// Sound in pieces as long as the source's period; whole, if it has none.
fn chunks(audio: &Audio, source: &Source) -> Vec<Vec<Data>> {
    let audio = onbeat_speech::resample(audio, MICROPHONE_HZ).unwrap_or_else(|_| audio.clone());
    let Some(period) = source.period().filter(|_| !source.session) else { return vec![vec![Data::Audio(audio)]] };
    let length = ((period.as_secs() * f64::from(MICROPHONE_HZ)).round() as usize).max(1);
    let piece = |samples: &[f32]| vec![Data::Audio(Audio { rate_hz: MICROPHONE_HZ, samples: samples.into() })];
    audio.samples.chunks_exact(length).map(piece).collect()
}
