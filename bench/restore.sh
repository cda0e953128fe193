#!/usr/bin/env bash
# `./run bench restore`: see restore_compare.py.
PYTHONDONTWRITEBYTECODE=1 exec python3 "$(dirname "${BASH_SOURCE[0]}")/restore_compare.py" "$@"
