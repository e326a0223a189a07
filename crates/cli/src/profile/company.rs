//! Models in company: each measured while the others of its processor take their turns in between, as in a run.
//!
//! How long an inference takes depends on what the core did before. A model that runs again at once finds its data in the caches; one
//! that comes after 100 ms of rest finds neither data nor code. In a run it is between the two: others have used the caches, and some of
//! the same kernels.

use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use onbeat_backend::{Control, Data, Error, Session};
use onbeat_models::{Cache, RunsAs};

use super::Side;
use super::measure::{inputs, ms_since};
use crate::live::samples;

/// Pause before each turn.
const PAUSE: Duration = Duration::from_millis(3);

/// Language models and recognisers take part in every so many rounds: they are long, and measured by themselves.
const LONG_EVERY: u32 = 4;

/// Turns of the streaming models, one after the other, before each of the others: they run many times a second, mostly after each other.
const STREAMING_TURNS: usize = 3;

/// Every so many turns of the others, another processor is woken at the same time, as frames of two streams often are.
const PARTNER_EVERY: usize = 2;

/// Rounds that do not count.
const WARM_UP: u32 = 2;

/// Latencies of whole inferences [ms], by model in the order of `sides`, which are models on one processor; none for models that go by
/// tokens. `partners` are models on another processor, which sometimes works at the same time: what that takes – a core that has to be
/// woken, shared caches – belongs to the latencies.
pub(crate) fn in_company(
    sides: &[Side],
    partners: &[Side],
    rounds: u32,
    cache: &Cache,
) -> Result<Vec<Vec<f64>>, Error> {
    std::thread::scope(|scope| {
        let server = Server::start(scope, sides, cache);
        let partner = (!partners.is_empty()).then(|| Server::start(scope, partners, cache));
        let mut latencies = vec![Vec::new(); sides.len()];
        let mut turn_number = 0;
        'rounds: for round in 0..rounds + WARM_UP {
            for turn in turns(sides, round) {
                turn_number += usize::from(!is_streaming(sides[turn].kind));
                std::thread::sleep(PAUSE);
                let together = !is_streaming(sides[turn].kind) && usize::is_multiple_of(turn_number, PARTNER_EVERY);
                let partner = partner.as_ref().filter(|_| together);
                let start = Instant::now();
                let answered = server.ask(turn)
                    && partner.is_none_or(|partner| partner.ask(short(partners, turn_number)))
                    && server.answer();
                let latency = ms_since(start);
                if !answered || !partner.is_none_or(Server::answer) {
                    break 'rounds;
                }
                if round >= WARM_UP && !is_long(sides[turn].kind) {
                    latencies[turn].push(latency);
                }
            }
        }
        server.end()?;
        partner.map_or(Ok(()), Server::end)?;
        Ok(latencies)
    })
}

/// A thread on a processor that serves whoever asks.
struct Server<'scope> {
    asks: Sender<usize>,
    done: Receiver<()>,
    thread: ScopedJoinHandle<'scope, Result<(), Error>>,
}

impl<'scope> Server<'scope> {
    fn start<'env>(scope: &'scope Scope<'scope, 'env>, sides: &'env [Side], cache: &'env Cache) -> Self {
        let (asks, asked) = bounded::<usize>(1);
        let (answers, done) = bounded::<()>(1);
        let serve = move || -> Result<(), Error> {
            let Some(first) = sides.first() else { return Ok(()) };
            onbeat_runtime::pin(&first.cores).map_err(Error::device)?;
            first.unit.host(|| {
                let mut seats: Vec<Seat<'_>> =
                    sides.iter().map(|side| Seat::take(side, cache)).collect::<Result<_, _>>()?;
                while let Ok(turn) = asked.recv() {
                    seats[turn].serve()?;
                    if answers.send(()).is_err() {
                        break;
                    }
                }
                Ok(())
            })
        };
        Self { asks, done, thread: scope.spawn(serve) }
    }

    fn ask(&self, turn: usize) -> bool {
        self.asks.send(turn).is_ok()
    }

    fn answer(&self) -> bool {
        self.done.recv().is_ok()
    }

    fn end(self) -> Result<(), Error> {
        drop((self.asks, self.done));
        self.thread.join().unwrap_or_else(|_| Err(Error::device("the measuring thread has panicked")))
    }
}

/// A model that does not go by tokens: another one each time; the first if there is none.
fn short(sides: &[Side], number: usize) -> usize {
    let short: Vec<usize> = (0..sides.len()).filter(|&i| !is_long(sides[i].kind)).collect();
    short.get(number % short.len().max(1)).copied().unwrap_or(0)
}

fn is_long(kind: RunsAs) -> bool {
    matches!(kind, RunsAs::Language | RunsAs::Whisper)
}

fn is_streaming(kind: RunsAs) -> bool {
    matches!(kind, RunsAs::Vad | RunsAs::Denoiser)
}

/// Who has a turn in a round, in order. The others begin with another one in each round, so that nobody always follows the same one.
fn turns(sides: &[Side], round: u32) -> Vec<usize> {
    let of = |streaming: bool| (0..sides.len()).filter(move |&i| is_streaming(sides[i].kind) == streaming);
    let mut others: Vec<usize> =
        of(false).filter(|&i| !is_long(sides[i].kind) || round.is_multiple_of(LONG_EVERY)).collect();
    if others.is_empty() {
        return of(true).collect();
    }
    let first = round as usize % others.len();
    others.rotate_left(first);
    let streaming = of(true).collect::<Vec<usize>>().repeat(STREAMING_TURNS);
    others.into_iter().flat_map(|other| streaming.iter().copied().chain([other])).collect()
}

/// A model with a session and what it works on.
struct Seat<'a> {
    side: &'a Side,
    session: Box<dyn Session>,
    inputs: Vec<Vec<Data>>,
    served: usize,
    control: Control,
}

impl<'a> Seat<'a> {
    fn take(side: &'a Side, cache: &Cache) -> Result<Self, Error> {
        let inputs = match side.kind {
            RunsAs::Language => vec![vec![Data::Text(samples::QUESTIONS[2].into())]],
            kind => inputs(kind, cache),
        };
        Ok(Self { side, session: side.model.open()?, inputs, served: 0, control: Control::new() })
    }

    fn serve(&mut self) -> Result<(), Error> {
        self.session.begin(&self.inputs[self.served % self.inputs.len()])?;
        self.served += 1;
        if is_long(self.side.kind) {
            // The prompt and one token: enough to use the caches as it does.
            let size = self.side.model.size(&self.inputs[0])?.prompt;
            super::measure::read_prompt(self.session.as_mut(), size, u32::MAX, &self.control)?;
            self.session = self.side.model.open()?;
            return Ok(());
        }
        while !self.session.step(u32::MAX, &self.control)?.done {}
        self.session.finish()?;
        Ok(())
    }
}
