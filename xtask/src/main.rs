//! onbeat
fn main() {}
