//! Tests of the program `onbeat` from outside: arguments in, output and exit code out.

mod basics;
mod comparing;
mod errors;
mod recording;
mod scenarios;
mod support;
