//! Fake models whose behaviour is scripted, and runs whose invariants are checked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onbeat_backend::{Control, Data, Error, Footprint, Gate, Model, Output, Session, Step};
use onbeat_core::event::{DropCause, Event, Sink, What};
use onbeat_core::id::{Id, ModelId, NodeId, ProcessorId, SourceId};
use onbeat_core::policy::{Actions, Policy, View};
use onbeat_core::record::{Header, Record};
use onbeat_core::system::System;
use onbeat_driver::{Checker, Facts};
use onbeat_runtime::{Feed, Finished, Keep, Library, Options, Plan, Product, RunError, Trouble, replay, run};

/// What a step does, besides its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Fail,
    Panic,
    /// Sleeps, deaf to cancelling, and goes on as if nothing had happened.
    Sleep(Duration),
    /// Sets the flag that stops the run.
    Stop,
}

/// When: processor, inference of the model there (from 0), step of the inference (from 0).
pub(crate) type When = fn(processor: &str, inference: u32, step: u32) -> Option<Fault>;

/// How a fake model behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// Steps until the inference is done; for a language model, tokens including the first.
    pub(crate) steps: u32,
    /// Tokens of the prompt, of a language model.
    pub(crate) prompt: u32,
    pub(crate) step: Duration,
    pub(crate) fault: When,
    /// Steps between two parts of the output.
    pub(crate) part_every: Option<u32>,
    pub(crate) movable: bool,
    pub(crate) gate: Gate,
    /// Puts regions out instead of text.
    pub(crate) regions: u32,
    /// The most sessions that share a step.
    pub(crate) members_max: usize,
    /// Steps that an input takes besides.
    pub(crate) more: fn(input: &str) -> u32,
    pub(crate) load: fn(processor: &str, control: &Control) -> Result<(), Error>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            steps: 1,
            prompt: 0,
            step: Duration::from_micros(300),
            fault: |_, _, _| None,
            part_every: None,
            movable: true,
            gate: Gate::Unknown,
            regions: 0,
            members_max: 1,
            more: |_| 0,
            load: |_, _| Ok(()),
        }
    }
}

/// What models saw.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Model, processor, input in words.
    pub(crate) begun: Mutex<Vec<(String, String, String)>>,
    /// Model, what the session works on, step.
    pub(crate) steps: Mutex<Vec<(String, String, u32)>>,
    /// Model and processor.
    pub(crate) loads: Mutex<Vec<(String, String)>>,
    /// How many sessions shared a step, for each step that more than one shared.
    pub(crate) shared: Mutex<Vec<usize>>,
}

#[derive(Debug)]
struct Shelf {
    system: Arc<System>,
    scripts: BTreeMap<&'static str, Script>,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
}

impl Library for Shelf {
    fn load(&self, model: ModelId, processor: ProcessorId, control: &Control) -> Result<Arc<dyn Model>, Error> {
        let name = self.system.models[model].name.clone();
        let processor = self.system.platform.processors[processor].name.clone();
        let script = self.scripts[name.as_str()];
        self.log.loads.lock().unwrap().push((name.clone(), processor.clone()));
        (script.load)(&processor, control)?;
        let kind = Kind {
            name,
            processor,
            script,
            log: Arc::clone(&self.log),
            stop: Arc::clone(&self.stop),
            count: AtomicU32::new(0),
        };
        Ok(Arc::new(Fake(Arc::new(kind))))
    }
}

#[derive(Debug)]
struct Kind {
    name: String,
    processor: String,
    script: Script,
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    count: AtomicU32,
}

#[derive(Debug)]
struct Fake(Arc<Kind>);

impl Model for Fake {
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }
    fn open(&self) -> Result<Box<dyn Session>, Error> {
        let kind = Arc::clone(&self.0);
        Ok(Box::new(Fresh { kind, input: String::new(), history: String::new(), number: 0, prompt: 0, at: 0, said: 0 }))
    }
    fn members_max(&self) -> usize {
        self.0.script.members_max
    }
    fn step_together(&self, sessions: &mut [&mut dyn Session], control: &Control) -> Result<Vec<Step>, Error> {
        assert!((1..=self.0.script.members_max).contains(&sessions.len()));
        if sessions.len() > 1 {
            self.0.log.shared.lock().unwrap().push(sessions.len());
        }
        sessions.iter_mut().map(|session| session.step(1, control)).collect()
    }
}

/// A session. Its output names everything that it has been given: its input, and, as a stream, what it was given before.
#[derive(Debug)]
struct Fresh {
    kind: Arc<Kind>,
    input: String,
    history: String,
    number: u32,
    prompt: u32,
    at: u32,
    said: u32,
}

/// Data in words.
pub(crate) fn words(data: &[Data]) -> String {
    let one = |item: &Data| match item {
        Data::Text(text) => text.to_string(),
        Data::Regions(regions) => regions.iter().map(|r| format!("r{}", r.x)).collect::<Vec<_>>().join("&"),
        other => format!("{other:?}"),
    };
    data.iter().map(one).collect::<Vec<_>>().join("+")
}

impl Fresh {
    fn part(&mut self) -> Data {
        self.said += 1;
        Data::Text(format!("{}#{}", self.input, self.said).into())
    }
}

impl Session for Fresh {
    fn begin(&mut self, input: &[Data]) -> Result<(), Error> {
        self.input = words(input);
        if self.input.contains("bad") {
            return Err(Error::invalid_input("this is bad"));
        }
        self.history = format!("{}{};", self.history, self.input);
        self.number = self.kind.count.fetch_add(1, Ordering::Relaxed);
        (self.prompt, self.at, self.said) = (0, 0, 0);
        let (name, processor) = (self.kind.name.clone(), self.kind.processor.clone());
        self.kind.log.begun.lock().unwrap().push((name, processor, self.input.clone()));
        Ok(())
    }

    fn step(&mut self, units: u32, control: &Control) -> Result<Step, Error> {
        assert!(!self.input.is_empty(), "a session steps only after it has begun");
        let script = self.kind.script;
        match (script.fault)(&self.kind.processor, self.number, self.at) {
            Some(Fault::Fail) => return Err(Error::device("it failed")),
            Some(Fault::Panic) => panic!("scripted"),
            Some(Fault::Sleep(time)) => std::thread::sleep(time),
            Some(Fault::Stop) => self.kind.stop.store(true, Ordering::Relaxed),
            None => {}
        }
        if control.is_cancelled() {
            return Err(Error::cancelled());
        }
        std::thread::sleep(script.step);
        let mut units = units;
        if self.prompt < script.prompt {
            units = units.min(script.prompt - self.prompt);
            self.prompt += units;
        } else {
            units = 1;
        }
        if self.prompt >= script.prompt {
            self.kind.log.steps.lock().unwrap().push((self.kind.name.clone(), self.input.clone(), self.at));
            self.at += 1;
        }
        let done = self.at >= script.steps + (script.more)(&self.input);
        let mut parts = Vec::new();
        if let Some(every) = script.part_every
            && self.at > 0
        {
            if self.at.is_multiple_of(every) {
                parts.push(self.part());
            }
            if done {
                // The rest, in the same step.
                parts.push(self.part());
            }
        }
        Ok(Step { units, done, parts })
    }

    fn end_early(&mut self) -> Result<Vec<Data>, Error> {
        Ok(if self.kind.script.part_every.is_some() { vec![self.part()] } else { Vec::new() })
    }

    fn finish(&mut self) -> Result<Output, Error> {
        let script = self.kind.script;
        let region = |i| onbeat_backend::Region { x: i as f32, y: 0.0, width: 1.0, height: 1.0, score: 1.0 };
        let text = format!("{}({})", self.kind.name, if script.movable { &self.history } else { &self.input });
        let data = if script.regions > 0 {
            vec![Data::Regions((0..script.regions).map(region).collect())]
        } else {
            vec![Data::Text(text.into())]
        };
        Ok(Output { data, gate: script.gate })
    }

    fn save(&self) -> Result<Vec<u8>, Error> {
        if !self.kind.script.movable {
            return Err(Error::unsupported("it stays"));
        }
        Ok(format!("{}\n{}\n{}\n{}\n{}", self.input, self.history, self.prompt, self.at, self.said).into_bytes())
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), Error> {
        let text = String::from_utf8(saved.to_vec()).unwrap();
        let mut lines = text.lines();
        let mut next = || lines.next().unwrap().to_owned();
        (self.input, self.history) = (next(), next());
        (self.prompt, self.at, self.said) = (next().parse().unwrap(), next().parse().unwrap(), next().parse().unwrap());
        Ok(())
    }
}

#[derive(Debug)]
struct Numbers(fn(u64) -> String, bool);

impl Feed for Numbers {
    fn data(&self, source: SourceId, index: u64) -> Vec<Data> {
        let index = if self.1 { 10 * index + source.index() as u64 } else { index };
        vec![Data::Text(self.0(index).into())]
    }
    fn stand_in(&self, node: NodeId) -> Vec<Data> {
        vec![Data::Text(format!("standin{}", node.index()).into())]
    }
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) products: Vec<Product>,
    pub(crate) troubles: Vec<Trouble>,
}

impl Keep for Kept {
    fn product(&mut self, product: Product) {
        self.products.push(product);
    }
    fn trouble(&mut self, trouble: Trouble) {
        self.troubles.push(trouble);
    }
}

/// A policy made of one function.
#[derive(Clone, Debug)]
pub(crate) struct Rule(pub(crate) fn(&View<'_>, &mut Actions));

impl Policy for Rule {
    fn decide(&mut self, view: &View<'_>, actions: &mut Actions) {
        (self.0)(view, actions);
    }
}

/// Starts ready stages in order on the first processor that is free, one per processor and decision.
pub(crate) fn first_come(view: &View<'_>, actions: &mut Actions) {
    let mut free: Vec<u32> = view.processors().map(|p| view.free_slots(p)).collect();
    for &stage in view.ready() {
        let place = view.processors().find(|&p| free[p.0 as usize] > 0 && view.can_run(stage, p));
        if let Some(p) = place {
            free[p.0 as usize] -= 1;
            actions.start(stage, p);
        }
    }
}

/// What to run.
pub(crate) struct Setup {
    pub(crate) toml: String,
    pub(crate) scripts: Vec<(&'static str, Script)>,
    pub(crate) rule: fn(&View<'_>, &mut Actions),
    pub(crate) feed: fn(u64) -> String,
    /// Whether sources are told apart by the last digit of the numbers in the feed.
    pub(crate) sources_apart: bool,
    pub(crate) hang_floor: Duration,
    /// Whether the stop flag is set from the start.
    pub(crate) stop_at_once: bool,
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) system: Arc<System>,
    pub(crate) events: Vec<Event>,
    pub(crate) kept: Kept,
    pub(crate) log: Arc<Log>,
    pub(crate) finished: Finished,
}

impl Setup {
    pub(crate) fn new(toml: impl Into<String>, scripts: &[(&'static str, Script)]) -> Self {
        Self {
            toml: toml.into(),
            scripts: scripts.to_vec(),
            rule: first_come,
            feed: |index| format!("i{index}"),
            sources_apart: false,
            hang_floor: Duration::from_mins(1),
            stop_at_once: false,
        }
    }

    pub(crate) fn try_run(&self) -> Result<Ran, RunError> {
        let system = Arc::new(System::from_toml(&self.toml).unwrap_or_else(|errors| panic!("{errors}")));
        let stop = Arc::new(AtomicBool::new(self.stop_at_once));
        let log = Arc::new(Log::default());
        let scripts = self.scripts.iter().copied().collect();
        let (their_system, their_log) = (Arc::clone(&system), Arc::clone(&log));
        let shelf = Shelf { system: their_system, scripts, log: their_log, stop: Arc::clone(&stop) };
        let plan = Plan {
            system: Arc::clone(&system),
            policy: Box::new(Rule(self.rule)),
            policy_name: "rule".to_owned(),
            seed: 1,
            facts: Facts::default(),
            library: Arc::new(shelf),
            feed: Arc::new(Numbers(self.feed, self.sources_apart)),
            options: Options { hang_floor: self.hang_floor, urgent: false, stop, ..Options::default() },
        };
        let (finished, events, kept) = run(plan, Vec::<Event>::new(), Kept::default())?;
        Ok(Ran { system, events, kept, log, finished })
    }

    /// Runs it; the invariants must hold, no job may be unaccounted for, and the record must replay to the same events.
    pub(crate) fn run(&self) -> Ran {
        let ran = self.try_run().unwrap_or_else(|error| panic!("{error}"));
        let mut checker = Checker::new(&ran.system);
        for event in &ran.events {
            checker.event(event);
        }
        assert_eq!(checker.finish(), []);
        let ends = ran.count(|what| matches!(what, What::JobDone { .. } | What::Drop { .. } | What::Unfinished { .. }));
        assert_eq!(ran.count(|what| matches!(what, What::Release { .. })), ends);
        assert_eq!(ran.events.last().map(|event| event.what), Some(What::End));
        let header = Header::new(&ran.system, "runtime", "rule", 1);
        let record = Record { header, events: ran.events.clone(), complete: true };
        replay(&record, Box::new(Rule(self.rule)), "rule").unwrap_or_else(|error| panic!("{error}"));
        ran
    }
}

impl Ran {
    pub(crate) fn count(&self, pick: impl Fn(&What) -> bool) -> usize {
        self.events.iter().filter(|event| pick(&event.what)).count()
    }

    pub(crate) fn done(&self) -> usize {
        self.count(|what| matches!(what, What::JobDone { .. }))
    }

    pub(crate) fn failed(&self) -> usize {
        self.count(|what| matches!(what, What::Drop { cause: DropCause::Failed, .. }))
    }

    /// Outputs of a model in words, in order.
    pub(crate) fn outputs(&self, model: &str) -> Vec<String> {
        let of = |product: &&Product| self.system.models[self.system.nodes[product.node].model].name == model;
        self.kept.products.iter().filter(of).map(|product| words(&product.data)).collect()
    }

    /// Every inference of the model did its steps once each and in order, wherever they were done.
    pub(crate) fn assert_each_step_once(&self, model: &str) {
        let mut steps: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (name, input, step) in self.log.steps.lock().unwrap().iter() {
            if name == model {
                steps.entry(input.clone()).or_default().push(*step);
            }
        }
        assert!(!steps.is_empty());
        for (input, steps) in steps {
            assert!(steps.iter().copied().eq(0..steps.len() as u32), "{input}: {steps:?}");
        }
    }

    /// Inputs that a model was given, in words, in order.
    pub(crate) fn inputs(&self, model: &str) -> Vec<String> {
        let begun = self.log.begun.lock().unwrap();
        begun.iter().filter(|(name, _, _)| name == model).map(|(_, _, input)| input.clone()).collect()
    }
}

/// Waits until it is cancelled, as a long load or step does.
pub(crate) fn until_cancelled(control: &Control) -> Result<(), Error> {
    let patience = Instant::now() + Duration::from_secs(30);
    while !control.is_cancelled() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::cancelled())
}

/// A platform of two real processors, and costs for models on them.
pub(crate) fn scenario(duration_s: f64, processors: &[&str], models: &[(&str, &str, &str)], rest: &str) -> String {
    use std::fmt::Write;
    let mut toml = format!("name = \"t\"\nduration_s = {duration_s}\n");
    if rest.contains("not_preloaded") {
        toml.push_str("preloaded = false\n");
    }
    toml.push_str("[platform]\nname = \"p\"\n[platform.memory]\n");
    if rest.contains("one_gigabyte") {
        toml.push_str("capacity_gb = 1\n");
    }
    for name in processors {
        let (name, device) = name.split_once(':').unwrap_or((name, "fake"));
        let (name, extra) = name.split_once('*').map_or((name, String::new()), |(n, s)| (n, format!("slots = {s}\n")));
        write!(toml, "[[platform.processor]]\nname = \"{name}\"\nkind = \"npu\"\ndevice = \"{device}\"\n{extra}")
            .unwrap();
    }
    for (name, spec, cost) in models {
        write!(toml, "[model.{name}]\n{spec}\n").unwrap();
        for processor in processors {
            let processor = processor.split([':', '*']).next().unwrap();
            let (only, cost) = cost.split_once('@').unwrap_or(("", cost));
            if only.is_empty() || only == processor {
                write!(toml, "[[cost]]\nmodel = \"{name}\"\nprocessor = \"{processor}\"\n{cost}\n").unwrap();
            }
        }
    }
    toml.push_str(rest);
    toml
}
