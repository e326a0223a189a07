//! How plans bear noise, as two tables in Markdown: `cargo run --release -p onbeat-sim --example noise`. See `docs/plans-and-noise.md`.

#![expect(clippy::disallowed_macros, reason = "a program that prints")]

mod sweep;

use sweep::{Load, POLICIES, SPREADS, render, sweep};

fn main() {
    for (title, load) in [("One job at a time", Load::Alone), ("Overlapping jobs", Load::Overlapping)] {
        println!("{title}:\n\n{}", render(POLICIES, SPREADS, &sweep(POLICIES, SPREADS, load)));
    }
}
