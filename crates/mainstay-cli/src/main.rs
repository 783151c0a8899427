//! (program docs follow)
fn main() {}
