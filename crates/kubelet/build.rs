//! Asks the linker for a small program, where it is one that can: the linker that Rust brings for this target.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTFLAGS");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|v| v == value);
    if !is("PROFILE", "release") || !is("TARGET", "x86_64-unknown-linux-gnu") || !is_rusts_own_linker() {
        return;
    }
    // Equal code of different types is there once. Nothing here compares addresses of functions.
    println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    // Relocations in a form that glibc 2.36 and later reads; a program that is built on an older system must start there.
    if glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether the compiler links with the LLD beside it, its default for this target, and nobody chose another.
fn is_rusts_own_linker() -> bool {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let Ok(told) = Command::new(rustc).args(["--print", "sysroot"]).output() else { return false };
    let sysroot = String::from_utf8_lossy(&told.stdout);
    let lld = Path::new(sysroot.trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld/ld.lld");
    env::var("RUSTC_LINKER").is_err() && !flags.contains("link") && lld.exists()
}

/// The version of glibc on this machine, as `ldd --version` ends its first line.
fn glibc() -> Option<(u32, u32)> {
    let told = Command::new("ldd").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&told.stdout);
    let (major, minor) = text.lines().next()?.rsplit(' ').next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
