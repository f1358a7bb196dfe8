#!/bin/sh
# Unpacks the profile of where the binary spends its time (benches/profile) into directory $1 and
# prints the compiler flags that make use of it; nothing for a compiler that cannot read it.
set -eu
cd "$(dirname "$0")/.."
packed=benches/profile/tulle.profdata.gz
llvm=$(rustc --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
# The oldest that reads this format.
[ -f "$packed" ] && [ "${llvm:-0}" -ge 19 ] || exit 0
# Another profile has another name, so that cargo compiles anew.
profile=$1/$(cksum <"$packed" | cut -d ' ' -f 1).profdata
if [ ! -s "$profile" ]; then
    mkdir -p "$1"
    gzip -dc "$packed" >"$profile.part"
    mv "$profile.part" "$profile"
fi
# Functions that have changed since are compiled without.
printf '%s\n' "-Cprofile-use=$profile -Cllvm-args=-no-pgo-warn-mismatch"
