#!/usr/bin/env bash
# `./run bench incremental`: see incremental.py.
PYTHONDONTWRITEBYTECODE=1 exec python3 "$(dirname "${BASH_SOURCE[0]}")/incremental.py" "$@"
