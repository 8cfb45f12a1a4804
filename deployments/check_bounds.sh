#!/usr/bin/env bash
# Do the bounds in pyproject.toml still give a Prefect server that starts? The lock can
# be fine while a fresh resolution is not.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$scratch"' EXIT

"${1:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check .
"$scratch/venv/bin/python" -m pip list --disable-pip-version-check | grep -iE '^(prefect|fastapi|sqlalchemy|polars|pyarrow|pydantic|ollama|cyclopts) '

port=$("$scratch/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PREFECT_HOME="$scratch/prefect" PREFECT_SERVER_ANALYTICS_ENABLED=false
"$scratch/venv/bin/prefect" server start --host 127.0.0.1 --port "$port" >"$scratch/log" 2>&1 &
server=$!
for _ in $(seq 90); do
    if "$scratch/venv/bin/python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/api/health', timeout=2)" 2>/dev/null; then
        "$scratch/venv/bin/reports" --version
        echo "ok: a server from a fresh resolution of the bounds is healthy"
        exit 0
    fi
    kill -0 "$server" 2>/dev/null || break
    sleep 1
done
echo "a server from a fresh resolution of the bounds does not start:"
tail -n 20 "$scratch/log"
exit 1
