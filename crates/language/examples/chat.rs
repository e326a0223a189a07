//! Asks a language model, and tells how fast it answers.
//!
//! `cargo run --release -p onbeat-language --example chat -- MODEL QUESTION…`, where MODEL is a GGUF file (converted into a folder
//! beside it on first use) or the folder of a converted model.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use onbeat_backend::{Control, Data, Error, LoadOptions, Loader, Model};
use onbeat_backend_rten::Rten;
use onbeat_language::{Options, convert_file, load};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let Some(model) = arguments.next().map(PathBuf::from) else {
        return Err(Error::invalid_input("what is wanted: a GGUF file or a converted model's folder, then a question"));
    };
    let question = arguments.collect::<Vec<_>>().join(" ");
    let mut dir = model.clone();
    if model.is_file() {
        dir = model.with_extension("onbeat");
        if !dir.exists() {
            let begin = Instant::now();
            convert_file(&model, &dir)?;
            println!("[converted into {} in {:.1} s]", dir.display(), begin.elapsed().as_secs_f64());
        }
    }
    let backend = Rten;
    let (options, control) = (LoadOptions::default(), Control::new());
    let loader = Loader { backend: &backend, device: "cpu", options: &options, control: &control };
    let begin = Instant::now();
    let model = load(&dir, &loader, Options::default())?;
    println!("[{}, loaded in {:.0} ms]", model.name(), milliseconds(begin.elapsed()));

    let input = [Data::Text(question.into())];
    let tokens = model.size(&input)?.prompt;
    let mut session = model.open()?;
    session.begin(&input)?;
    let begin = Instant::now();
    let mut step = session.step(tokens, &control)?;
    let prefill = begin.elapsed();
    let (mut count, begin) = (0, Instant::now());
    loop {
        for part in &step.parts {
            if let Data::Text(text) = part {
                println!("{text}");
                // A reader wants to see each sentence when it is there; a closed pipe is no reason to stop measuring.
                let _ = std::io::stdout().flush();
            }
        }
        if step.done {
            break;
        }
        step = session.step(1, &control)?;
        count += 1;
    }
    let each = milliseconds(begin.elapsed()) / f64::from(count.max(1));
    let per_second = 1000.0 / each;
    println!(
        "[prefill of {tokens} tokens {:.0} ms, then {each:.2} ms a token, {per_second:.1} tokens/s]",
        milliseconds(prefill)
    );
    println!("[caches {:.1} MB, process {:.0} MB]", session.memory() as f64 / 1e6, resident_bytes() / 1e6);
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Memory of this process [bytes]; 0 where `/proc` does not tell.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|it| it.split_whitespace().next()?.parse::<f64>().ok()).map_or(0.0, |kilobytes| kilobytes * 1024.0)
}
