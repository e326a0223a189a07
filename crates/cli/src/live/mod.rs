//! Real runs: the runtime with models, inputs, a record, and somewhere to put what the models produce.

mod feed;
mod library;
mod listen;
mod outputs;
pub(crate) mod samples;
mod speech;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use onbeat_core::event::Event;
use onbeat_core::summary::Summary;
use onbeat_core::system::System;
use onbeat_runtime::{Finished, Options, Plan, Trouble};

use crate::failure::Failure;
use crate::policies;
use crate::ui::Ui;

pub(crate) use feed::Inputs;
pub(crate) use library::{Devices, Unit, backends, cache, kind_of, shares_steps};

/// One real run to do.
#[derive(Debug)]
pub(crate) struct RealRun<'a> {
    pub(crate) system: &'a Arc<System>,
    pub(crate) policy: &'a str,
    pub(crate) seed: u64,
    pub(crate) devices: &'a Arc<Devices>,
    pub(crate) inputs: &'a Arc<Inputs>,
    pub(crate) urgent: bool,
    pub(crate) record: &'a Path,
    /// Folder for what the models produce; `None`: nothing is kept.
    pub(crate) outputs: Option<&'a Path>,
}

/// What came out.
#[derive(Debug)]
pub(crate) struct RealDone {
    pub(crate) summary: Summary,
    pub(crate) events: Vec<Event>,
    pub(crate) finished: Finished,
    pub(crate) troubles: Vec<Trouble>,
    /// What the models produced, in words.
    pub(crate) products: Vec<String>,
    /// Why the record is not whole, if it is not.
    pub(crate) record_failure: Option<std::io::Error>,
}

/// Does a real run.
pub(crate) fn one(run: &RealRun<'_>, ui: Ui) -> Result<RealDone, Failure> {
    let policy = policies::make(run.policy, run.system)?;
    let recorder = listen::begin(run.record, run.system, run.policy, run.seed)?;
    let (events, theirs) = crossbeam_channel::unbounded();
    let keeper = outputs::Keeper::new(run.system, run.outputs)?;
    let facts = run.inputs.facts(run.system, run.devices)?;
    let plan = Plan {
        system: Arc::clone(run.system),
        policy,
        policy_name: run.policy.to_owned(),
        seed: run.seed,
        facts,
        library: Arc::clone(run.devices) as _,
        feed: Arc::clone(run.inputs) as _,
        options: Options { urgent: run.urgent, stop: stop_flag(), ..Options::default() },
    };
    let bar = ui.progress_over(run.system.duration.as_secs() as u64);
    let (ran, heard) = std::thread::scope(|scope| {
        let listener = std::thread::Builder::new().name("record".to_owned()).spawn_scoped(scope, || {
            onbeat_runtime::stand_back();
            listen::listen(run.system, run.policy, run.seed, &theirs, recorder, &bar)
        });
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => return (Err(onbeat_runtime::RunError::Thread(error)), None),
        };
        let teller = listen::Teller::new(events);
        // The sender goes with the run, and the listener ends.
        let ran = onbeat_runtime::run(plan, teller, keeper).map(|(finished, _, keeper)| (finished, keeper));
        (ran, listener.join().ok())
    });
    let (finished, keeper) = ran.map_err(|error| failure(&error))?;
    let heard = heard.ok_or_else(|| Failure::Internal("the thread that writes the record has panicked".to_owned()))?;
    let (troubles, products) = keeper.finish()?;
    let listen::Heard { summary, events, record_failure } = heard;
    Ok(RealDone { summary, events, finished, troubles, products, record_failure })
}

fn failure(error: &onbeat_runtime::RunError) -> Failure {
    use onbeat_runtime::RunError;
    match error {
        RunError::Load { .. } => Failure::Device {
            message: error.to_string(),
            help: Some(
                "`onbeat doctor` shows devices and models; `onbeat models fetch` gets what is missing".to_owned(),
            ),
        },
        RunError::Exits { .. } => Failure::Device {
            message: error.to_string(),
            help: Some("leave `exits` out for real runs, or rehearse: leave out the processors' `device`".to_owned()),
        },
        RunError::Content { .. } => Failure::Device {
            message: error.to_string(),
            help: Some("leave `content` out for real runs, or rehearse: leave out the processors' `device`".to_owned()),
        },
        RunError::Thread(_) => Failure::Internal(error.to_string()),
        RunError::Drive(_) => Failure::Policy { message: error.to_string(), help: None },
    }
}

/// A flag that Ctrl-C sets: the run then ends in order, and its record is valid. A second Ctrl-C ends the program.
fn stop_flag() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&flag);
        // Without a handler Ctrl-C ends the program at once, and the record is a readable prefix.
        let _ = ctrlc::set_handler(move || {
            if set.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
        flag
    });
    Arc::clone(flag)
}

/// Whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    stop_flag().load(Ordering::Relaxed)
}

/// Keeps cores from sleeping for as long as what it returns lives; says so if that cannot be.
pub(crate) fn keep_awake(cores: &[u32], ui: Ui) -> Option<onbeat_runtime::Awake> {
    onbeat_runtime::Awake::keep(cores).map_err(|problem| ui.warn(&format!("cores may sleep: {problem}"))).ok()
}
