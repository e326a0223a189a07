//! One model on one processor, alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use onbeat_backend::{Audio, Control, Data, Error, Model, Session};
use onbeat_models::{Cache, RunsAs};
use onbeat_runtime::{energy_uj, nvidia_energy_uj, resident_bytes};

use super::pieces::{self, Pieces};
use super::quantile;
use crate::live::{Unit, samples};

/// Prompt lengths that a language model is measured at [tokens].
const PROMPTS: [u32; 5] = [16, 64, 128, 256, 512];

/// Tokens per segment of a prompt.
pub(crate) const CHUNK: u32 = 64;

/// Sizes of the smaller pieces that prompts are also read in [tokens].
const PIECES: [u32; 3] = [8, 16, 32];

/// Output tokens that a decode step is measured over, at each length of the prompt.
const DECODE_STEPS: u32 = 12;

/// Most answers that share a step.
const MEMBERS: usize = 8;

/// Prompt length at which steps that several answers share are measured [tokens].
const SHARED_PROMPT: u32 = 128;

/// Pause before each inference.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(3);

/// Memory that is touched between two inferences: more than a core's own caches hold.
const OTHER_MEMORY: usize = 4 << 20;

/// Length of speech that a recogniser is measured at [s].
const SPEECH_S: [u32; 3] = [4, 12, 20];

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// Name of the model.
    pub(crate) name: String,
    /// What it does.
    pub(crate) kind: RunsAs,
    /// Its file; `None`: it is in the catalogue.
    pub(crate) path: Option<PathBuf>,
}

/// What one model costs on one processor.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    /// Its file; `None`: it is in the catalogue.
    pub(crate) path: Option<PathBuf>,
    /// Time to load it, weights in the file cache or not as they were [ms].
    pub(crate) load_ms: f64,
    /// Weights, by the model itself [bytes].
    pub(crate) weights: u64,
    /// Growth of the process while it was loaded and used, besides the weights [bytes].
    pub(crate) memory: u64,
    /// Runs measured.
    pub(crate) runs: u32,
    /// Energy of one inference, one step, by the counter of the package or the graphics processors, everything that they did meanwhile included [mJ]; `None` without one.
    pub(crate) energy_mj: Option<f64>,
    pub(crate) shape: Shape,
}

/// What was measured, by how the model runs.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// Whole inferences.
    Whole {
        /// Latency of each run [ms].
        latencies_ms: Vec<f64>,
        /// Mean latency of each segment [ms].
        segments_ms: Vec<f64>,
        /// Whether a state goes from one inference to the next.
        streaming: bool,
    },
    /// A prompt, then tokens.
    Tokens {
        /// Prompt length [tokens] and latency [ms].
        prefill_ms: Vec<(f64, f64)>,
        /// What pieces of a prompt cost; `None` if prompts are not cut.
        pieces: Option<Pieces>,
        /// Context length [tokens] and latency of a step [ms].
        decode_ms: Vec<(f64, f64)>,
        /// Answers that share a step, and its latency relative to that of one; empty if none do.
        batch_factor: Vec<(f64, f64)>,
        /// Key-value cache per token [bytes].
        kv_bytes_per_token: f64,
    },
}

impl Shape {
    /// Whether it is cut off by tokens.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Whole { streaming: false, .. } => "one_shot",
            Self::Whole { streaming: true, .. } => "streaming",
            Self::Tokens { .. } => "autoregressive",
        }
    }
}

impl Measured {
    /// Takes latencies that were measured in company in place of those alone; segments keep their shares. Nothing changes if there are
    /// none.
    pub(crate) fn keep_company(&mut self, found: Vec<f64>) {
        if let Shape::Whole { latencies_ms, .. } = &mut self.shape
            && !found.is_empty()
        {
            self.runs = found.len() as u32;
            *latencies_ms = found;
        }
    }
}

/// Measures a model on a processor: on the calling thread, which the caller has pinned.
pub(crate) fn measure(
    subject: &Subject,
    unit: &Unit,
    segments: usize,
    runs: u32,
    cache: &Cache,
) -> Result<(Measured, Arc<dyn Model>), Error> {
    let control = Control::new();
    let before = resident_bytes();
    let start = Instant::now();
    let model =
        unit.load(&subject.name, subject.kind, subject.path.as_deref(), (segments, MEMBERS), cache, &control)?;
    let load_ms = ms_since(start);
    let energy_counter = if unit.is_nvidia() { nvidia_energy_uj } else { energy_uj };
    let energy_before = energy_counter();
    let (shape, inferences) = match subject.kind {
        RunsAs::Language | RunsAs::Whisper => tokens(&*model, subject.kind, runs, &control)?,
        _ => whole(&*model, subject.kind, runs, cache, &control)?,
    };
    let energy_mj = match (energy_before, energy_counter()) {
        (Some(before), Some(after)) if after >= before => {
            Some((after - before) as f64 / 1e3 / f64::from(inferences.max(1)))
        }
        _ => None,
    };
    let weights = model.footprint().weights;
    let memory = resident_bytes().saturating_sub(before).saturating_sub(weights);
    let measured = Measured {
        name: subject.name.clone(),
        path: subject.path.clone(),
        load_ms,
        weights,
        memory,
        runs,
        energy_mj,
        shape,
    };
    Ok((measured, model))
}

pub(super) fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Whole inferences on a model's sample; the first few do not count.
///
/// Each is asked for by another thread after a pause, with other memory touched in between, and timed from there: as in a run, where the
/// dispatcher wakes a processor's thread, and other models have used its caches meanwhile. In a loop a small model would look several
/// times faster than it is among others.
fn whole(model: &dyn Model, kind: RunsAs, runs: u32, cache: &Cache, control: &Control) -> Result<(Shape, u32), Error> {
    let inputs = inputs(kind, cache);
    let warm_up = (runs / 10).clamp(2, 20);
    let (asks, asked) = crossbeam_channel::bounded::<Instant>(1);
    let (done, dones) = crossbeam_channel::bounded::<()>(1);
    let timed = std::thread::scope(|scope| {
        let asker = scope.spawn(move || {
            let mut latencies = Vec::new();
            for _ in 0..runs + warm_up {
                std::thread::sleep(PAUSE);
                let start = Instant::now();
                if asks.send(start).is_err() || dones.recv().is_err() {
                    break;
                }
                latencies.push(ms_since(start));
            }
            latencies
        });
        let mut segments: Vec<Vec<f64>> = Vec::new();
        let mut served = 0;
        let mut other = vec![0_u8; OTHER_MEMORY];
        let mut serve = || -> Result<(), Error> {
            let mut session = model.open()?;
            while asked.recv().is_ok() {
                session.begin(&inputs[served % inputs.len()])?;
                let mut parts = Vec::new();
                loop {
                    let part = Instant::now();
                    let done = session.step(u32::MAX, control)?.done;
                    parts.push(ms_since(part));
                    if done {
                        break;
                    }
                }
                session.finish()?;
                served += 1;
                segments.resize(parts.len().max(segments.len()), Vec::new());
                for (all, part) in segments.iter_mut().zip(parts) {
                    all.push(part);
                }
                if done.send(()).is_err() {
                    break;
                }
                // Within the pause, so that it counts for nothing but what is in the caches afterwards.
                other.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
            }
            Ok(())
        };
        let result = serve();
        // The asker ends with the channels, whatever happened.
        drop((asked, done));
        let latencies = asker.join().unwrap_or_default();
        result.map(|()| (latencies, segments))
    });
    let (latencies, segments) = timed?;
    let latencies_ms = latencies.get(warm_up as usize..).unwrap_or_default().to_vec();
    if latencies_ms.is_empty() {
        return Err(Error::device("nothing was measured"));
    }
    let segments_ms = segments.iter().map(|all| quantile(all, 0.5)).collect();
    let streaming = matches!(kind, RunsAs::Vad | RunsAs::Denoiser);
    Ok((Shape::Whole { latencies_ms, segments_ms, streaming }, runs + warm_up))
}

/// What inferences are measured on: for a voice, sentences of several lengths.
pub(super) fn inputs(kind: RunsAs, cache: &Cache) -> Vec<Vec<Data>> {
    const SENTENCES: [&str; 4] = [
        "Paris is the capital of France.",
        "The sky is blue because air scatters blue light more than red light.",
        "Once upon a time there was a small dog who lived by the sea.",
        "It is a beautiful city, and millions of people visit it every year.",
    ];
    match kind {
        RunsAs::Voice => SENTENCES.iter().map(|&text| vec![Data::Text(text.into())]).collect(),
        _ => vec![samples::sample(kind, cache)],
    }
}

/// Prompts of several lengths, and tokens after them.
fn tokens(model: &dyn Model, kind: RunsAs, runs: u32, control: &Control) -> Result<(Shape, u32), Error> {
    let repeats = (runs / 10).clamp(3, 20);
    let mut prefill: Vec<(f64, f64)> = Vec::new();
    let mut decode: Vec<(f64, f64)> = Vec::new();
    let mut kv_bytes_per_token = 0.0;
    let mut inferences = 0;
    let inputs: Vec<Vec<Data>> = match kind {
        RunsAs::Whisper => SPEECH_S.iter().map(|&seconds| vec![Data::Audio(murmur(seconds))]).collect(),
        _ => PROMPTS.iter().map(|&tokens| prompt_of(model, tokens)).collect::<Result<_, _>>()?,
    };
    for input in &inputs {
        let size = f64::from(model.size(input)?.prompt);
        let mut session = model.open()?;
        let (mut firsts, mut steps) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            session.begin(input)?;
            let start = Instant::now();
            let mut done = read_prompt(session.as_mut(), size as u32, u32::MAX, control)?;
            firsts.push(ms_since(start));
            kv_bytes_per_token = session.memory() as f64 / size.max(1.0);
            for _ in 0..DECODE_STEPS {
                if done {
                    break;
                }
                let start = Instant::now();
                done = session.step(1, control)?.done;
                steps.push(ms_since(start));
            }
            inferences += 1;
            session = model.open()?;
        }
        if prefill.last().is_none_or(|&(last, _)| size > last) {
            prefill.push((size, quantile(&firsts, 0.5)));
            if !steps.is_empty() {
                let context = if kind == RunsAs::Whisper { size } else { size + f64::from(DECODE_STEPS) / 2.0 };
                decode.push((context, quantile(&steps, 0.5)));
            }
        }
    }
    if decode.is_empty() {
        return Err(Error::unsupported("the model ended its output at once, at every length: nothing to measure"));
    }
    let pieces = if kind == RunsAs::Language { pieces(model, repeats, control)? } else { None };
    let batch_factor = shared(model, repeats, control)?;
    increasing(&mut prefill);
    let shape = Shape::Tokens { prefill_ms: prefill, pieces, decode_ms: decode, batch_factor, kv_bytes_per_token };
    Ok((shape, inferences))
}

/// What a step costs that so many answers share, relative to one: 1, 2, 4 and so on, and as many as the model takes. The sizes take turns,
/// so that what else the machine does meets all of them alike.
fn shared(model: &dyn Model, repeats: u32, control: &Control) -> Result<Vec<(f64, f64)>, Error> {
    let most = model.members_max();
    if most == 1 {
        return Ok(Vec::new());
    }
    let powers = std::iter::successors(Some(1), |size| Some(2 * size)).take_while(|&size| size < most);
    let sizes: Vec<usize> = powers.chain([most]).collect();
    let input = prompt_of(model, SHARED_PROMPT)?;
    let size = model.size(&input)?.prompt;
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); sizes.len()];
    for _ in 0..repeats.div_ceil(2) {
        let mut groups: Vec<Vec<Box<dyn Session>>> = Vec::new();
        for &members in &sizes {
            let mut group = Vec::new();
            for _ in 0..members {
                let mut session = model.open()?;
                session.begin(&input)?;
                if read_prompt(session.as_mut(), size, u32::MAX, control)? {
                    return Ok(Vec::new());
                }
                group.push(session);
            }
            groups.push(group);
        }
        for _ in 0..DECODE_STEPS {
            let mut done = false;
            for (group, times) in groups.iter_mut().zip(&mut times) {
                let mut members: Vec<&mut dyn Session> =
                    group.iter_mut().map(|it| &mut **it as &mut dyn Session).collect();
                let start = Instant::now();
                let steps = model.step_together(&mut members, control)?;
                times.push(ms_since(start));
                done |= steps.iter().any(|step| step.done);
            }
            if done {
                break;
            }
        }
    }
    let medians: Vec<f64> = times.iter().map(|times| quantile(times, 0.5)).collect();
    let mut factor = 1.0_f64;
    let point = |(&members, median): (&usize, &f64)| {
        // More members never take less; noise can make it look so.
        factor = factor.max(median / medians[0]);
        (members as f64, factor)
    };
    Ok(sizes.iter().zip(&medians).map(point).collect())
}

/// Reads the prompt in pieces of `chunk`; whether that was the whole inference.
pub(super) fn read_prompt(session: &mut dyn Session, size: u32, chunk: u32, control: &Control) -> Result<bool, Error> {
    let mut read = 0;
    while read < size.max(1) {
        let step = session.step(chunk, control)?;
        read += step.units.max(1);
        if step.done {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What it costs to read a prompt in pieces; `None` if the model does not read it in pieces of the sizes that it is asked for. The sizes
/// take turns, so that what else the machine does meets all of them alike.
fn pieces(model: &dyn Model, repeats: u32, control: &Control) -> Result<Option<Pieces>, Error> {
    let input = prompt_of(model, PROMPTS[3])?;
    let size = model.size(&input)?.prompt;
    let sizes = || PIECES.into_iter().chain([CHUNK, u32::MAX]);
    let mut all: Vec<Vec<f64>> = sizes().map(|_| Vec::new()).collect();
    for _ in 0..repeats {
        for (times, piece) in all.iter_mut().zip(sizes()) {
            let mut session = model.open()?;
            session.begin(&input)?;
            let start = Instant::now();
            let steps = steps_of_prompt(session.as_mut(), size, piece, control)?;
            times.push(ms_since(start));
            if steps != size.div_ceil(piece) {
                return Ok(None);
            }
        }
    }
    let mut medians: Vec<(u32, f64)> = sizes().zip(&all).map(|(size, times)| (size, quantile(times, 0.5))).collect();
    Ok(medians.pop().and_then(|(_, whole)| pieces::fit(size, whole, &medians)))
}

/// Reads the prompt in pieces of `chunk`; how many there were.
fn steps_of_prompt(session: &mut dyn Session, size: u32, chunk: u32, control: &Control) -> Result<u32, Error> {
    let (mut read, mut steps) = (0, 0);
    while read < size.max(1) {
        let step = session.step(chunk, control)?;
        read += step.units.max(1);
        steps += 1;
        if step.done {
            break;
        }
    }
    Ok(steps)
}

/// Tables of prefill must increase; noise can make a longer prompt look faster.
fn increasing(points: &mut [(f64, f64)]) {
    for i in 1..points.len() {
        points[i].1 = points[i].1.max(points[i - 1].1 * 1.001);
    }
}

/// A prompt of about so many tokens.
fn prompt_of(model: &dyn Model, tokens: u32) -> Result<Vec<Data>, Error> {
    const WORDS: [&str; 12] =
        ["please", "tell", "me", "about", "the", "river", "and", "the", "old", "town", "by", "it"];
    let text = |words: usize| -> Vec<Data> {
        let words: Vec<&str> = (0..words).map(|i| WORDS[i % WORDS.len()]).collect();
        vec![Data::Text(words.join(" ").into())]
    };
    // The chat template comes on top of the words, so the number of words is found, not computed.
    let (mut low, mut high) = (1, tokens as usize + 1);
    while low + 1 < high {
        let middle = usize::midpoint(low, high);
        if model.size(&text(middle))?.prompt <= tokens { low = middle } else { high = middle }
    }
    Ok(text(low))
}

/// Sound that keeps a recogniser busy: a tone whose pitch and loudness change as in speech.
fn murmur(seconds: u32) -> Audio {
    let wave = |i: u32| {
        let t = f64::from(i) / 16_000.0;
        let pitch = 140.0 + 40.0 * (t * 2.1).sin();
        let loudness = 0.1 * (1.0 + (t * 9.0).sin()) * 0.5;
        ((t * pitch * std::f64::consts::TAU).sin() * loudness) as f32
    };
    Audio { rate_hz: 16_000, samples: (0..seconds * 16_000).map(wave).collect() }
}
