#!/bin/sh
# Installs what the project needs, once, and again when the lock file has changed. Plain shell, because it runs
# before anything is installed and on a machine whose own Node may be too old for the tools.
#
#   sh scripts/setup.sh         dependencies
#   sh scripts/setup.sh types   dependencies, and the types of the Worker's bindings, which are generated and not kept
set -eu
cd "$(dirname "$0")/.."

stamp=node_modules/.package-lock.json
if [ ! -f "$stamp" ] || [ package-lock.json -nt "$stamp" ]; then
  echo "sallyport: installing dependencies (once) ..." >&2
  npm install --no-save --include=dev --no-audit --no-fund --loglevel=error >&2
  touch "$stamp"
fi

if [ "${1:-}" = types ]; then
  export PATH="$PWD/node_modules/.bin:$PATH" WRANGLER_HIDE_BANNER=true WRANGLER_SEND_METRICS=false
  # From wrangler.toml alone: a .dev.vars of this machine must not change what the types say.
  if ! said=$(wrangler types --env-file /dev/null 2>&1); then
    echo "$said" >&2
    exit 1
  fi
fi
