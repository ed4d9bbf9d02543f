#!/usr/bin/env bash
# Makes .venv as pinned. Called by make with the Python to use; quiet unless something fails.
set -euo pipefail
python=$1
log=.venv/setup.log

if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'; then
    echo "Python 3.11 or 3.12 is needed, $python is $("$python" --version 2>&1 || echo missing);" \
         "install it, or name one: make PYTHON=python3.11 ..." >&2
    exit 2
fi
# A virtual environment does not survive being moved or its Python being replaced.
if ! { [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null \
       && [ "$(.venv/bin/python -c 'import sys; print(sys.prefix)')" = "$PWD/.venv" ]; }; then
    rm -rf .venv
    "$python" -m venv .venv
fi
echo "Setting up .venv; once, a few minutes (log: $log)" >&2
if ! .venv/bin/python -m pip install --disable-pip-version-check --constraint .constraints.txt \
        --editable '.[dev]' > "$log" 2>&1; then
    grep -v '^WARNING' "$log" | tail -n 15 >&2
    echo "set-up failed; the whole log is in $log" >&2
    exit 1
fi
.venv/bin/python -m compileall -q .venv/lib >> "$log" 2>&1 || true
touch .venv/.set-up
