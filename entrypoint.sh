#!/bin/sh
# The first argument is "worker" or "web" on ECS, "serve" on SageMaker, and the handler's name on Lambda.
case "$1" in
    worker) set -- python -m functions.segment.ecs.worker ;;
    web) shift; set -- python -m web --address 0.0.0.0 "$@" ;;
    serve) set -- python -m functions.segment.sagemaker.server ;;
    *) set -- python -m awslambdaric "$@" ;;
esac
# SageMaker and sam local start the container as root, Lambda and ECS as an unprivileged user.
[ "$(id -u)" != 0 ] || set -- setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs "$@"
exec "$@"
