//! `rubelet`: the kubelet's program.
mod flags;
mod klog;
fn main() {}
