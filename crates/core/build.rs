//! Makes the crate build again when a file is added to the library that it embeds.

#![expect(clippy::disallowed_macros, reason = "a build script talks to cargo by printing")]

fn main() {
    println!("cargo:rerun-if-changed=../../library");
}
