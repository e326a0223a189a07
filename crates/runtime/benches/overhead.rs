//! What the runtime itself costs: `cargo bench -p onbeat-runtime --bench overhead`. Prints a table; a machine that does other things
//! as well shows it in the high percentiles.

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onbeat_backend::{Control, Data, Error, Footprint, Model, Output, Session, Step};
use onbeat_core::event::{Event, Sink, What};
use onbeat_core::id::{ModelId, ProcessorId, SourceId};
use onbeat_core::system::System;
use onbeat_core::units::Nanos;
use onbeat_driver::Facts;
use onbeat_runtime::{
    Command, Feed, Finished, Keep, Library, Live, Options, Plan, Product, Report, Times, Trouble, run,
};

/// Begin and end of each step.
type Steps = Arc<Mutex<Vec<(Instant, Instant)>>>;

/// A model that counts to a number.
#[derive(Clone, Debug)]
struct Counter {
    to: u64,
    times: Steps,
}

fn count(to: u64) {
    for i in 0..to {
        black_box(i);
    }
}

impl Library for Counter {
    fn load(&self, _: ModelId, _: ProcessorId, _: &Control) -> Result<Arc<dyn Model>, Error> {
        Ok(Arc::new(self.clone()))
    }
}

impl Model for Counter {
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }
    fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for Counter {
    fn begin(&mut self, _: &[Data]) -> Result<(), Error> {
        Ok(())
    }
    fn step(&mut self, _: u32, _: &Control) -> Result<Step, Error> {
        let begin = Instant::now();
        count(self.to);
        let end = Instant::now();
        self.times.lock().expect("nobody panics while holding it").push((begin, end));
        Ok(Step { units: 1, done: true, parts: Vec::new() })
    }
    fn finish(&mut self) -> Result<Output, Error> {
        Ok(Output::default())
    }
}

#[derive(Debug)]
struct Nothing;

impl Feed for Nothing {
    fn data(&self, _: SourceId, _: u64) -> Vec<Data> {
        Vec::new()
    }
}

impl Keep for Nothing {
    fn product(&mut self, _: Product) {}
    fn trouble(&mut self, trouble: Trouble) {
        eprintln!("{}", trouble.what);
    }
}

/// When events were told.
#[derive(Debug, Default)]
struct Clock {
    released: Vec<Instant>,
    ran: Vec<Instant>,
}

impl Sink for Clock {
    fn event(&mut self, event: &Event) {
        match event.what {
            What::Release { .. } => self.released.push(Instant::now()),
            What::Ran { .. } => self.ran.push(Instant::now()),
            _ => {}
        }
    }
}

fn system(period_ms: f64, jobs: u32, to: u64, models: u32) -> System {
    use std::fmt::Write;
    let duration = period_ms * f64::from(jobs) / 1000.0 + 2.0 + f64::from(jobs) * if to > 0 { 0.012 } else { 0.0 };
    let mut toml = format!(
        "name = \"overhead\"\nduration_s = {duration}\n[platform]\nname = \"p\"\n[platform.memory]\n\
         [[platform.processor]]\nname = \"a\"\nkind = \"npu\"\ndevice = \"fake\"\n\
         [[stream]]\nname = \"s\"\nmodel = \"m0\"\nperiod_ms = {period_ms}\ncount = {jobs}\n"
    );
    for i in 0..models {
        // Models that nothing asks for would be left out.
        write!(toml, "[model.m{i}]\n[[cost]]\nmodel = \"m{i}\"\nprocessor = \"a\"\nlatency_ms = 0.01\n")
            .expect("writing to a string succeeds");
        if i > 0 {
            writeln!(toml, "[[stream]]\nname = \"s{i}\"\nmodel = \"m{i}\"\nperiod_ms = 1000000\nphase_ms = 1000000")
                .expect("writing to a string succeeds");
        }
    }
    System::from_toml(&toml).unwrap_or_else(|errors| panic!("{errors}"))
}

fn go(period_ms: f64, jobs: u32, to: u64, models: u32) -> (Finished, Clock, Vec<(Instant, Instant)>) {
    let system = Arc::new(system(period_ms, jobs, to, models));
    let times = Steps::default();
    let plan = Plan {
        policy: onbeat_policy::make("edf", &system).expect("it is shipped"),
        policy_name: "edf".to_owned(),
        seed: 1,
        facts: Facts::default(),
        library: Arc::new(Counter { to, times: Arc::clone(&times) }),
        feed: Arc::new(Nothing),
        options: Options { hang_floor: Duration::from_mins(1), ..Options::default() },
        system,
    };
    let (finished, clock, Nothing) = run(plan, Clock::default(), Nothing).unwrap_or_else(|error| panic!("{error}"));
    let times = times.lock().expect("nobody panics while holding it").clone();
    (finished, clock, times)
}

/// What the state machine alone takes for each of a stream's tasks: release and start at one instant, end at another [ns].
fn alone(models: u32) -> Vec<u64> {
    let system = system(0.5, 20_000, 0, models);
    let policy = onbeat_policy::make("edf", &system).expect("it is shipped");
    let mut live = Live::new(&system, policy, "edf", 1, Facts::default(), Clock::default());
    let (mut commands, mut costs) = (Vec::new(), Vec::new());
    for job in 0..20_000 {
        let at = live.next_timer();
        let begin = Instant::now();
        live.instant(at, &[], &mut commands).expect("the policy is correct");
        let Some(Command::Launch(launch)) = commands.pop() else { panic!("every release starts a task") };
        let ran = Report::Ran { run: launch.run, steps: 1, finished: true };
        live.instant(at + Nanos(10_000), &[ran], &mut commands).expect("the policy is correct");
        live.forget(job);
        costs.push(begin.elapsed().as_nanos() as u64);
    }
    costs
}

/// How long a message takes to another thread, which sleeps, and back [ns]: what the machine itself asks for.
fn there_and_back() -> Vec<u64> {
    let (to, theirs) = std::sync::mpsc::channel::<()>();
    let (back, ours) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || while theirs.recv().is_ok_and(|()| back.send(()).is_ok()) {});
    let once = |_| {
        std::thread::sleep(Duration::from_micros(200));
        let begin = Instant::now();
        to.send(()).expect("the thread runs");
        ours.recv().expect("the thread runs");
        begin.elapsed().as_nanos() as u64
    };
    let times = (0..3000).map(once).collect();
    drop(to);
    thread.join().expect("it does not panic");
    times
}

/// A row of the table: median and 99th percentile [µs].
fn row(what: &str, mut ns: Vec<u64>) {
    ns.sort_unstable();
    let at = |q: f64| ns.get((ns.len() as f64 * q) as usize).map_or(f64::NAN, |&ns| ns as f64);
    line(what, at(0.5), at(0.99), ns.len() as u64);
}

fn line(what: &str, median_ns: f64, p99_ns: f64, count: u64) {
    println!("{what:<52} {:>10.2} {:>10.2}   n = {count}", median_ns / 1e3, p99_ns / 1e3);
}

fn times(what: &str, times: &Times) {
    line(what, times.at(0.5).as_f64(), times.at(0.99).as_f64(), times.count());
}

fn between(from: impl Iterator<Item = Instant>, to: impl Iterator<Item = Instant>) -> Vec<u64> {
    from.zip(to).map(|(from, to)| to.saturating_duration_since(from).as_nanos() as u64).collect()
}

fn main() {
    println!("{:<52} {:>10} {:>10}", "[µs]", "median", "p99");
    for models in [1, 20] {
        println!("empty tasks, 2000 a second, {models} models in memory");
        let (finished, clock, steps) = go(0.5, 4000, 0, models);
        row("  the state machine alone, for a task", alone(models));
        times("  an instant, first report to last command sent", &finished.instants);
        row("  release told to step begun", between(clock.released.iter().copied(), steps.iter().map(|s| s.0)));
        row("  step ended to end told", between(steps.iter().map(|s| s.1), clock.ran.iter().copied()));
        times("  release jitter", &finished.lateness);
        for note in finished.notes {
            println!("  note: {note}");
        }
    }
    row("a message to a thread that sleeps, and back", there_and_back());
    let calibrated = |_| {
        let begin = Instant::now();
        count(10_000_000);
        begin.elapsed().as_secs_f64()
    };
    let ten_million_s = (0..20).map(calibrated).fold(f64::MAX, f64::min);
    let to = (10_000_000.0 * 0.005 / ten_million_s) as u64;
    println!("tasks that compute for about 5 ms, one after the other");
    let bare: Vec<(Instant, Instant)> = (0..300)
        .map(|_| {
            let begin = Instant::now();
            count(to);
            (begin, Instant::now())
        })
        .collect();
    let median = |steps: &[(Instant, Instant)]| {
        let mut periods = between(steps.iter().map(|s| s.0), steps.iter().skip(1).map(|s| s.0));
        periods.sort_unstable();
        periods[periods.len() / 2] as f64
    };
    let (_, _, steps) = go(1.0, 300, to, 1);
    row("  bare, the task itself", between(bare.iter().map(|s| s.0), bare.iter().map(|s| s.1)));
    row("  in a run, the task itself", between(steps.iter().map(|s| s.0), steps.iter().map(|s| s.1)));
    let gaps = between(steps.iter().map(|s| s.1), steps.iter().skip(1).map(|s| s.0));
    row("  in a run, between two tasks", gaps);
    println!("  overhead (median period in a run over bare): {:+.2} %", (median(&steps) / median(&bare) - 1.0) * 100.0);
}
