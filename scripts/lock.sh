#!/usr/bin/env bash
# Renews constraints.txt: versions and hashes for every extra and platform, and no download address.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv pip compile pyproject.toml --all-extras --generate-hashes --universal --python-version 3.11 \
  --no-annotate --no-header --quiet "$@" --output-file constraints.txt
