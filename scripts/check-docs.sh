#!/bin/sh
# Do the commands that the documentation shows exist, with those flags?
#
#   check-docs.sh TULLE [FILE...]
#
# Looks at every `tulle ...` in fenced blocks marked console, sh or shell, and in `code` within the
# text, and compares subcommands and flags with what TULLE --help says. Nothing is executed but --help.
set -eu
cd "$(dirname "$0")/.."
tulle=${1:?usage: check-docs.sh TULLE [FILE...]}
shift
[ $# -gt 0 ] || set -- ./*.md docs/*.md examples/*/README.md

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# FILE:LINE<tab>the words after `tulle`, up to `--`, a comment, a pipe or a redirection.
awk '
function words(text,    n, i, w, out) {
    n = split(text, w, /[ \t]+/)
    out = ""
    for (i = 1; i <= n; i++) {
        if (w[i] == "--" || w[i] ~ /^[#|<>&;\\]/ || w[i] ~ /^[0-9]>/) break
        gsub(/[;,.:)]+$/, "", w[i])
        if (w[i] != "") out = out " " w[i]
    }
    return out
}
function command(text) {
    # Everything before the name: a prompt, sudo, variables, a path.
    if (match(text, /^([^`$#]*[$#] +)?(sudo +)?([A-Z_]+=[^ ]* +)*(\.\/|target\/release\/)?tulle( |$)/))
        print FILENAME ":" FNR "\t" words(substr(text, RSTART + RLENGTH))
}
FNR == 1 { fence = 0 }
/^[ \t]*(```|~~~)/ {
    if (fence) fence = 0
    else { fence = 1; shown = ($0 ~ /(```|~~~) *(console|sh|shell|bash) *$/) }
    next
}
fence && shown { sub(/^[ \t]+/, ""); command($0) }
!fence {
    n = split($0, part, "`")
    for (i = 2; i <= n; i += 2) if (part[i] ~ /^tulle( |$)/ && i < n) command(part[i])
}
' "$@" >"$scratch/commands"
[ -s "$scratch/commands" ] || { echo "check-docs: no command found in $*" >&2; exit 1; }

# The --help of a command, asked once. $1: its words, joined by spaces; empty for `tulle` itself.
help_of() {
    file="$scratch/help-$(printf '%s' "$1" | tr ' ' '_')"
    # shellcheck disable=SC2086 # words
    [ -e "$file" ] || "$tulle" $1 --help >"$file" 2>/dev/null || : >"$file"
    echo "$file"
}

# Does this command have subcommands, and is this one of them? Hidden ones answer for themselves.
has_subcommands() {
    grep -q '^Commands:' "$(help_of "$1")"
}
is_subcommand() {
    sed -n '/^Commands:/,/^[A-Z][A-Za-z ]*:/p' "$(help_of "$1")" | grep -q "^  $2\( \|\$\)" || {
        # shellcheck disable=SC2086 # words
        [ -z "$1" ] && "$tulle" $2 --help >/dev/null 2>&1
    }
}

failed=0
wrong() {
    echo "$1: \`tulle$2\`: $3" >&2
    failed=1
}

tab=$(printf '\t')
count=0
while IFS="$tab" read -r where line; do
    count=$((count + 1))
    path=
    descending=1
    for word in $line; do
        case $word in
        '[--'*) word=${word#[} ;;
        esac
        word=${word%]}
        case $word in
        --*)
            flag=${word%%=*}
            grep -qE -e "(^|[ ,[])$flag([] ,=<.]|\$)" "$(help_of "$path")" ||
                wrong "$where" "$line" "$flag is no flag of \`tulle${path:+ $path}\`"
            ;;
        -[a-zA-Z]*)
            flag=$(printf '%s' "$word" | cut -c 1-2)
            grep -qE -e "(^|[ ,[])$flag([] ,=<.]|\$)" "$(help_of "$path")" ||
                wrong "$where" "$line" "$flag is no flag of \`tulle${path:+ $path}\`"
            ;;
        [a-z]*)
            if [ $descending = 1 ] && has_subcommands "$path"; then
                if is_subcommand "$path" "$word"; then
                    path="${path:+$path }$word"
                else
                    wrong "$where" "$line" "\`tulle${path:+ $path}\` has no command $word"
                    descending=0
                fi
            else
                descending=0
            fi
            ;;
        *) descending=0 ;;
        esac
    done
done <"$scratch/commands"
[ $failed = 0 ] && echo "check-docs: $count commands exist as shown"
exit $failed
