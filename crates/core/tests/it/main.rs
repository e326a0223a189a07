//! Integration tests of the specification files.

mod bad_files;
mod damage;
mod library;
mod mistakes;
mod resolve;
mod robustness;
