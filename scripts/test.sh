#!/usr/bin/env bash
# Every tier of tests, from a clean checkout: what `make test` and continuous integration run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

say "lint and types"
ruff check .
ruff format --check --quiet .
mypy
lint-imports --no-cache >/dev/null || lint-imports --no-cache

if [ "${CI:-}" = true ]; then
  # A missing prerequisite is a failure here, never a skip.
  export SUPPORTFLEET_REQUIRE_ALL=1
fi
if [ "$(id -u)" = 0 ] && [ -z "${KUBECONFIG:-}" ]; then
  say "what the cluster, services and e2e tiers need (binaries, packages, images; cached outside the checkout)"
  supportfleet local prepare --tests --yes
fi
say "tests"
exec pytest "$@"
