#!/usr/bin/env bash
# Makes the virtual environment: every dependency pinned by version and hash, then the project itself, editable.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${1:-.venv}
python=${PYTHON:-python3}
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "supportfleet needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1 || echo missing)." >&2
  echo "Install one and say which: make PYTHON=python3.12 …" >&2
  exit 1
fi
# Debian ships venv without pip's wheels unless python3-venv is installed.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
  else
    echo "'$python' has no venv module: install it (on Debian: apt-get install python3-venv) and run this again." >&2
    exit 1
  fi
fi
if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
  say "making $venv"
  rm -rf "$venv"
  "$python" -m venv "$venv"
fi
say "installing pinned dependencies into $venv"
uv_pin=$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' constraints.txt)
if ! "$venv/bin/uv" --version >/dev/null 2>&1; then
  # pip checks uv against the same hashes as everything else.
  wanted=$(mktemp) && trap 'rm -f "$wanted"' EXIT
  awk '/^uv==/ {on=1} /^[a-z]/ && !/^uv==/ {on=0} on' constraints.txt >"$wanted"
  [ -n "$uv_pin" ] || { echo "constraints.txt does not pin uv" >&2; exit 1; }
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$wanted"
fi
export VIRTUAL_ENV="$PWD/$venv"
[[ $venv = /* ]] && VIRTUAL_ENV=$venv
"$venv/bin/uv" pip sync --quiet --require-hashes constraints.txt
"$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
touch "$venv/.installed"
say "ready: $("$venv/bin/python" --version), $(grep -c '^[a-zA-Z].*==' constraints.txt) pinned packages"
