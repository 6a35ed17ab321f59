#!/bin/sh
# ECS passes "worker", SageMaker "serve", Lambda the name of a handler.
case "$1" in
    serve | worker) set -- python -m "functions.segment.$1" ;;
    *) set -- python -m awslambdaric "$@" ;;
esac
# Lambda and ECS choose a user. SageMaker and sam local do not, and start as root.
[ "$(id -u)" != 0 ] || set -- setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs "$@"
exec "$@"
