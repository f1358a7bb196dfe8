#!/bin/sh
# Prints the rustup toolchain that stands in for the pinned one, or nothing.
#
# rust-toolchain.toml names an exact version. Where rustup has that very compiler under the name
# `stable` only, it would download it again, or fail where it may not download.
set -eu
cd "$(dirname "$0")/.."
[ -z "${RUSTUP_TOOLCHAIN:-}" ] || exit 0
command -v rustup >/dev/null 2>&1 || exit 0
pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
installed=$(rustup toolchain list 2>/dev/null) || exit 0
case "$installed" in
*"$pinned"*) exit 0 ;;
*stable*) ;;
*) exit 0 ;;
esac
case "$(rustc +stable --version 2>/dev/null)" in
"rustc $pinned "*) echo stable ;;
esac
