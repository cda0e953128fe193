#!/usr/bin/env bash
# `./run bench engine`: see engine.py. What it measures inside a process is an example of the engine.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
(cd "$root" && cargo build --workspace --release --locked --example engine_bench)
ENGINE_BENCH_BIN="$(dirname "$SNAPSHOTS_BIN")/examples/engine_bench" PYTHONDONTWRITEBYTECODE=1 exec python3 "$root/bench/engine.py" "$@"
