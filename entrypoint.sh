#!/bin/sh
# Lambda passes the name of a handler. SageMaker passes "serve" and cannot be told another entry point.
case "$1" in
    serve) set -- python -m functions.segment.serve ;;
    *) set -- python -m awslambdaric "$@" ;;
esac
# Lambda and ECS choose a user. SageMaker and sam local do not, and start as root.
[ "$(id -u)" != 0 ] || set -- setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs "$@"
exec "$@"
