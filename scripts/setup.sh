#!/bin/sh
# Checks for what building and running Tulle needs and installs what is missing, on Debian and Ubuntu
# as root or with a sudo that asks nothing. Elsewhere it says in one line what is missing.
#
#   needed   Rust (the version in rust-toolchain.toml), a C compiler with the C library's headers
#            (aws-lc and SQLite are compiled from C; neither needs cmake, clang or pkg-config on Linux)
#   wanted   python3: one service of the example is written in it (else a built-in one stands in);
#            as root nftables: transparent mode (else tests and demo use explicit mode), and
#            redis-server: counts that several rate limit services share (else not tested)
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]
}

# Does it compile, and not only exist: a minimal machine may have a compiler without headers.
compiles() {
    scratch=$(mktemp -d)
    printf '#include <stdlib.h>\nint main(void) { return 0; }\n' >"$scratch/a.c"
    if ${CC:-cc} -o "$scratch/a" "$scratch/a.c" >/dev/null 2>&1; then works=0; else works=1; fi
    rm -rf "$scratch"
    return $works
}

needed=
wanted=
missing=
compiles || needed="gcc libc6-dev"
has python3 || wanted="$wanted python3"
if [ "$(id -u)" = 0 ] && [ "$(uname -s)" = Linux ]; then
    # iptables does as well, where there is no choice.
    has nft || { has iptables-restore && ! has apt-get; } || wanted="$wanted nftables"
    has redis-server || wanted="$wanted redis-server"
fi

if [ -n "$needed$wanted" ]; then
    root=
    if has apt-get; then
        if [ "$(id -u)" = 0 ]; then
            root='env DEBIAN_FRONTEND=noninteractive'
        elif has sudo && sudo -n true 2>/dev/null; then
            root='sudo env DEBIAN_FRONTEND=noninteractive'
        fi
    fi
    if [ -n "$root" ]; then
        # shellcheck disable=SC2086 # a list of packages
        set -- $needed $wanted
        echo "setup: installing $*"
        install() {
            $root apt-get install -y -q --no-install-recommends "$@" >"$log" 2>&1
        }
        log=$(mktemp)
        # The package lists may be missing or old.
        install "$@" || { $root apt-get update -q >"$log" 2>&1 && install "$@"; } || {
            cat "$log" >&2
            [ -z "$needed" ] || fail "apt-get could not install: $needed"
            echo "setup: going on without: $wanted"
        }
        rm -f "$log"
        [ -z "$needed" ] || compiles || fail "${CC:-cc} does not compile a C program, although $needed are installed"
    elif [ -n "$needed" ]; then
        missing="a C compiler with headers (as root: apt-get install gcc libc6-dev, or your system's build tools)"
    else
        echo "setup: going on without:$wanted (apt-get install as root brings them; neither is needed)"
    fi
fi

pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
least=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
rust=
if ! has cargo; then
    rust="Rust $pinned (https://rustup.rs installs it)"
# With rustup this downloads the pinned toolchain where it is not there yet.
elif ! version=$(cargo --version); then
    rust="Rust $pinned (run: rustup toolchain install $pinned --component rustfmt,clippy)"
else
    version=$(echo "$version" | sed 's/^cargo \([0-9]*\.[0-9]*\).*/\1/')
    newest=$(printf '%s\n%s\n' "$least" "$version" | sort -t. -k1,1n -k2,2n | tail -n 1)
    [ "$newest" = "$version" ] || rust="Rust $least or newer (this is $version; run: rustup update)"
fi
missing="$missing${missing:+${rust:+; }}$rust"
[ -z "$missing" ] || fail "missing: $missing"
