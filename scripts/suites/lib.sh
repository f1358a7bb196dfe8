# Shared by the scripts beside it: `. "$(dirname "$0")/lib.sh"`.
#
# What the suites need is installed under $SUITES_CACHE (default ~/.cache/tulle-suites) by the usual
# clients of Go and Python, once. Each script ends with a line of JSON, {"suite":…,"passed":…,
# "failed":…}, and exits 0 only if at least `--min` cases passed.
set -u
suites=${SUITES_CACHE:-$HOME/.cache/tulle-suites}
mkdir -p "$suites/bin"

# What ends with this script: processes it started, and files of its own.
started=
scratch=$(mktemp -d)
ended() {
    for pid in $started; do kill "$pid" 2>/dev/null; done
    rm -rf "$scratch"
}
trap ended EXIT
trap 'exit 130' INT TERM

missing() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

# go_tool NAME MODULE@VERSION PACKAGE: builds a Go program once and prints where it is.
go_tool() {
    if [ ! -x "$suites/bin/$1" ]; then
        command -v go >/dev/null || missing "Go is not installed"
        mkdir -p "$suites/src/$1"
        (
            cd "$suites/src/$1" && rm -f go.mod go.sum
            export GOTOOLCHAIN=local GOFLAGS=-mod=mod CGO_ENABLED=0
            go mod init suite && go get "$2" && go build -trimpath -o "$suites/bin/$1" "$3"
        ) >&2 || missing "$3 could not be built"
    fi
    echo "$suites/bin/$1"
}

# wait_port PORT: until something listens there on loopback, 10 s at most.
wait_port() {
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return 0; fi
        sleep 0.1
    done
    missing "nothing listens on port $1"
}

# verdict SUITE PASSED FAILED MIN
verdict() {
    printf '{"suite":"%s","passed":%d,"failed":%d}\n' "$1" "$2" "$3"
    [ "$2" -ge "$4" ]
}
