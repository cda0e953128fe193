#!/usr/bin/env bash
# `./run bench engine`: see engine.py. What it measures inside a process is an example of the engine; what it is compared with
# is a package of its own, lest everything be built with what only that needs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
release=$(dirname "$SNAPSHOTS_BIN")
(cd "$root" && cargo build --workspace --release --locked --example engine_bench)
CARGO_TARGET_DIR=$(dirname "$release") cargo build --release --locked --manifest-path "$root/bench/apalis/Cargo.toml"
ENGINE_BENCH_BIN=$release/examples/engine_bench APALIS_BENCH_BIN=$release/apalis-bench PYTHONDONTWRITEBYTECODE=1 \
    exec python3 "$root/bench/engine.py" "$@"
