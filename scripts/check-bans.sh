#!/bin/sh
# The bans of deny.toml, checked with nothing but cargo: none of those crates may be in what is built
# on Linux. (`cargo deny check` checks licences and sources too, where it is installed.)
set -eu
cd "$(dirname "$0")/.."
banned=$(sed -n '/^\[bans\]/,/^\[sources\]/ s/^ *{ crate = "\([^"]*\)".*/\1/p' deny.toml)
[ -n "$banned" ] || { echo "check-bans: deny.toml bans nothing" >&2; exit 1; }
failed=0
for target in x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu; do
    tree=$(cargo tree --workspace --edges all --target "$target" --prefix none --format '{p}')
    for name in $banned; do
        if printf '%s\n' "$tree" | grep -q "^$name v"; then
            echo "check-bans: $name is banned (deny.toml says why) but is built for $target, because of:" >&2
            cargo tree --workspace --edges all --target "$target" --invert "$name" --depth 3 >&2
            failed=1
        fi
    done
done
exit $failed
