# A private apt: own lists, own cache, own source entry, so that the base's
# suite can be read whatever the machine itself runs, and the machine's apt
# configuration stays as it is.  Sourced after lib.sh.
# SPDX-License-Identifier: GPL-2.0-or-later

APT=$BUILD/apt

# private_apt COMMAND...: run an apt tool against the private state, of the
# architecture APT_ARCH if that is set
private_apt() {
    local tool=$1 arch=()
    shift
    [ -z "${APT_ARCH:-}" ] ||
        arch=(-o APT::Architecture="$APT_ARCH" -o APT::Architectures="$APT_ARCH")
    "$tool" -q "${arch[@]}" -o Dir::Etc::sourcelist="$APT/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State::lists="$APT/lists" \
        -o Dir::Cache="$APT/cache" \
        -o APT::Sandbox::User=root \
        -o APT::Update::Error-Mode=any "$@"
}

# private_apt_open SUITE...: write the source entries and read the lists.  Lists
# younger than a day are taken as they are unless something is not found.
private_apt_open() {
    local suite origin uri key
    have apt-get apt
    mkdir -p "$APT/lists/partial" "$APT/cache/archives/partial"
    origin=$("$PYTHON" "$ROOT/base/apt-origin" --key-dir "$APT") ||
        die "apt on this machine knows no Debian archive to take the base from; set QEMU_SRC=/path/to/qemu-10.0.x"
    uri=${origin%%$'\t'*} key=${origin#*$'\t'}
    for suite in "$@"; do
        echo "deb [signed-by=$key] $uri $suite main"
        echo "deb-src [signed-by=$key] $uri $suite main"
    done >"$APT/sources.list.new"
    if cmp -s "$APT/sources.list.new" "$APT/sources.list" &&
       [ -n "$(find "$APT/fresh" -mmin -1440 2>/dev/null)" ]; then
        return 0
    fi
    mv "$APT/sources.list.new" "$APT/sources.list"
    note "reading the package lists of $*"
    private_apt apt-get update >"$APT/log" 2>&1 || {
        grep -E '^[EW]:' "$APT/log" | head -n 3 >&2 || true
        die "the Debian archive cannot be read (no network, or no $suite there?); set QEMU_SRC=/path/to/qemu-10.0.x to do without"
    }
    touch "$APT/fresh"
}
