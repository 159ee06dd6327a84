# Shared by the shell scripts in base/: places, messages, and the few checks
# that more than one of them makes.  Sourced, never run.
# SPDX-License-Identifier: GPL-2.0-or-later

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
BUILD=${FERRY_BUILD:-$ROOT/build}
DOWNLOAD=$BUILD/download
PRISTINE=$BUILD/tree/pristine
FERRY=$BUILD/tree/ferry
PYTHON=/usr/bin/python3

note() { printf '%s\n' "ferry: $*" >&2; }

# die MESSAGE: one line that says what failed and what to do about it
die() { printf '%s\n' "ferry: error: $*" >&2; exit 1; }

# have COMMAND PACKAGE: a missing tool names the package that brings it
have() {
    command -v "$1" >/dev/null ||
        die "$1 is not installed (Debian package $2); 'make deps' installs it"
}

# want_space GIGABYTES WHAT-FOR
want_space() {
    local free
    mkdir -p "$BUILD" || die "cannot create $BUILD"
    free=$(df --output=avail -B1G "$BUILD" | tail -n 1)
    [ "$free" -ge "$1" ] ||
        die "$2 needs $1 GB of disk, but $BUILD has only ${free// /} GB free"
}

# hold_lock: one fetch, assembly or build at a time in this build folder;
# inherited by the scripts that the holder calls
hold_lock() {
    [ -z "${FERRY_LOCKED:-}" ] || return 0
    mkdir -p "$BUILD" || die "cannot create $BUILD"
    exec 9>"$BUILD/.lock"
    if ! flock -n 9; then
        note "waiting for another build in $BUILD"
        flock 9
    fi
    export FERRY_LOCKED=1
}
