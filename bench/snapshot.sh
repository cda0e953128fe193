#!/usr/bin/env bash
# `./run bench snapshot`: see snapshot.py.
PYTHONDONTWRITEBYTECODE=1 exec python3 "$(dirname "${BASH_SOURCE[0]}")/snapshot.py" "$@"
