//! `rubelet`: the kubelet's program.
mod flags;
fn main() {}
