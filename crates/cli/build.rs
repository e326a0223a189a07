//! Makes the crate build again when one of the pages that it embeds changes.

fn main() {
    println!("cargo:rerun-if-changed=../../docs/policies");
}
