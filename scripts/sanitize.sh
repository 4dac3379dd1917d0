#!/usr/bin/env bash
# The kernels' tests under AddressSanitizer. Needs a nightly compiler, so CI does not run it:
#
#     rustup toolchain install nightly && scripts/sanitize.sh
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/sanitize
cargo +nightly test -p dari-kernels --lib --target "$target" "$@"
