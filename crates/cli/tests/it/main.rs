//! Tests of the program `onbeat` from outside: arguments in, output and exit code out.

mod basics;
mod batches;
mod comparing;
mod documented;
mod errors;
mod estimating;
mod recording;
mod running;
mod scenarios;
mod support;
