#!/bin/sh
# Arguments: "worker" on ECS, "serve" on SageMaker, the name of a handler on Lambda.
case "$1" in
    serve | worker) set -- python -m "functions.segment.$1" ;;
    *) set -- python -m awslambdaric "$@" ;;
esac
# Drop root privileges on SageMaker and sam local, which start as root. Lambda and ECS set a user.
[ "$(id -u)" != 0 ] || set -- setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs "$@"
exec "$@"
