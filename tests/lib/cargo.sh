# Rust: where cargo puts what it builds, and which toolchain is needed. Sourced.

# A fixed folder outside the checkout, so that a fresh clone builds only what changed.
if [ -z "${CARGO_TARGET_DIR:-}" ]; then
  if mkdir -p /var/cache/rubelet/target 2>/dev/null && [ -w /var/cache/rubelet/target ]; then
    CARGO_TARGET_DIR=/var/cache/rubelet/target
  else
    CARGO_TARGET_DIR=$PWD/target
  fi
fi
export CARGO_TARGET_DIR CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

# need_rust: a cargo that can build the workspace, and a C compiler for the linker.
need_rust() {
  [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH
  if ! command -v cargo >/dev/null; then
    echo "x: no cargo: Debian 12's is too old for this workspace; asking rustup for the version that Cargo.toml names"
    need_debian "fetching Rust" curl ca-certificates
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    curl -fsS --proto '=https' --tlsv1.2 https://sh.rustup.rs | sh -s -- -y -q --profile minimal -c rustfmt -c clippy --default-toolchain "$version" || {
      echo "x: no Rust: install Rust $version or newer with rustup (https://rustup.rs), then run this again" >&2
      return 1
    }
    PATH=$HOME/.cargo/bin:$PATH
  fi
  export PATH
  need_debian "linking" gcc libc6-dev
}

# kubelet_binary: builds the kubelet unless X_KUBELET names another one, and prints its path.
kubelet_binary() {
  if [ -n "${X_KUBELET:-}" ]; then echo "$X_KUBELET"; return; fi
  need_rust >&2 && cargo build -p rubelet-kubelet >&2 && echo "$CARGO_TARGET_DIR/debug/rubelet"
}
