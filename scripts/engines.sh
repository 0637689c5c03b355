#!/bin/sh
# Installs OpenFGA and SpiceDB, the engines that the tests of a remote graph run against, at the versions below, and prints their
# paths. From nothing it takes minutes on two processors; from the cache of an earlier run it takes none.
#
#   sh scripts/engines.sh [openfga|spicedb]
#   sh scripts/engines.sh built                 whether both are there already; installs nothing
set -eu

openfga=v1.22.1
spicedb=v1.56.2

folder=${SALLYPORT_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/sallyport/engines}
if [ "${1:-all}" = built ]; then
  [ -x "$folder/openfga-$openfga" ] && [ -x "$folder/spicedb-$spicedb" ]
  exit
fi
mkdir -p "$folder"

# install <name> <package> <version>: built beside and moved into place, so that a build that was cut leaves nothing
install() {
  if [ -x "$folder/$1-$3" ]; then
    echo "$folder/$1-$3"
    return
  fi
  if ! command -v go >/dev/null; then
    echo "engines: there is no Go on this machine" >&2
    exit 3
  fi
  echo "engines: building $1 $3 (once, minutes) ..." >&2
  GOBIN="$folder/building" GOFLAGS="-buildvcs=false" go install "$2@$3" >&2
  mv "$folder/building/$1" "$folder/$1-$3"
  echo "$folder/$1-$3"
}
case "${1:-all}" in openfga | all) install openfga github.com/openfga/openfga/cmd/openfga "$openfga" ;; esac
case "${1:-all}" in spicedb | all) install spicedb github.com/authzed/spicedb/cmd/spicedb "$spicedb" ;; esac
