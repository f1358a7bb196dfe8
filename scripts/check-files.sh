#!/bin/sh
# What must not be committed: paths of somebody's machine, private keys, conflict markers, unfinished
# snapshots, huge files. It looks at the files that git tracks.
set -u
cd "$(dirname "$0")/.."
if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    echo "check-files: not a git work tree, not checked"
    exit 0
fi
failed=0

forbid() {
    if found=$(git grep -nIE -e "$2" -- . ":!scripts/check-files.sh"); then
        echo "check-files: $1:" >&2
        printf '%s\n' "$found" | cut -c 1-200 | head -n 20 >&2
        failed=1
    fi
}

forbid "a path of somebody's machine" '(^|[^[:alnum:]_.~*-])/(work|root|home/[a-z]+|Users/[A-Za-z]+)/'
forbid "a path in somebody's temporary directory" '/tmp/(brief|bash_jobs|rustc)'
forbid "a private key" '^-----BEGIN [A-Z ]*PRIVATE KEY-----'
forbid "a conflict marker" '^(<{7}|>{7}|\|{7})( |$)'

list=$(git ls-files | grep -E '\.(snap\.new|pending-snap|orig|rej|pyc)$')
if [ -n "$list" ]; then
    printf 'check-files: left over from a tool:\n%s\n' "$list" >&2
    failed=1
fi
list=$(git ls-files -z | xargs -0 -r sh -c 'find "$@" -maxdepth 0 -type f -size +1024k' sh)
if [ -n "$list" ]; then
    printf 'check-files: larger than 1 MiB:\n%s\n' "$list" >&2
    failed=1
fi
exit $failed
