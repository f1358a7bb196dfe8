#!/usr/bin/env bash
# The interoperability cases of gRPC, with grpc-go's own client and server (module google.golang.org/grpc).
#
#   grpc-interop.sh serve PORT                   the server, until stopped
#   grpc-interop.sh run HOST PORT [--min 16]     the client; what listens there leads to the server
. "$(dirname "$0")/lib.sh"
module=google.golang.org/grpc
version=v1.85.0
case ${1:-} in
serve)
    server=$(go_tool grpc-interop-server $module@$version $module/interop/server) || exit
    exec "$server" -port "${2:?port}"
    ;;
run) ;;
*) missing "usage: serve PORT, or run HOST PORT" ;;
esac
host=${2:?host} port=${3:?port} min=16
[ "${4:-}" != --min ] || min=$5
client=$(go_tool grpc-interop-client $module@$version $module/interop/client) || exit
passed=0 failed=0
for case in empty_unary large_unary client_streaming server_streaming ping_pong empty_stream \
    timeout_on_sleeping_server cancel_after_begin cancel_after_first_response \
    status_code_and_message special_status_message custom_metadata unimplemented_method \
    unimplemented_service rpc_soak channel_soak; do
    if timeout 60 "$client" -server_host "$host" -server_port "$port" -use_tls=false -test_case "$case" \
        -soak_iterations 10 -soak_overall_timeout_seconds 50 >"$scratch/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $case: $(tail -n 1 "$scratch/log" | cut -c 1-200)" >&2
    fi
done
verdict grpc-interop $passed $failed "$min"
