#!/bin/sh
# Installs what the project needs, once, and again when the lock file has changed. Plain shell, because it runs
# before anything is installed and on a machine whose own Node may be too old for the tools.
set -eu
cd "$(dirname "$0")/.."
stamp=node_modules/.package-lock.json
if [ -f "$stamp" ] && [ -f package-lock.json ] && [ ! package-lock.json -nt "$stamp" ]; then
  exit 0
fi
echo "sallyport: installing dependencies (once) ..." >&2
npm install --no-save --include=dev --no-audit --no-fund --loglevel=error >&2
touch "$stamp"
