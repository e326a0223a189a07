//! The program `onbeat`. Everything is in the library, so that tests and the generated references can use it.

use std::process::ExitCode;

fn main() -> ExitCode {
    onbeat::main(std::env::args_os()).into()
}
