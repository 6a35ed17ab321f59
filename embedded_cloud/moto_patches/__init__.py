"""Patches for moto 5.2.5, where it differs from AWS and this project depends on the difference.

Each patch states what AWS does and what moto does. ``tests/unit/embedded_cloud/test_moto_still_needs_patches.py``
reproduces each difference on plain moto, and fails when a patch is no longer needed.
"""

import functools
import gc
import sys

RECURSION_LIMIT = 20_000


@functools.cache
def apply() -> None:
    """Import moto and patch it in this process. Further calls do nothing."""
    # Garbage collection among permanent objects takes a fifth of the start, and of each state later.
    gc.disable()
    try:
        _load()
    finally:
        gc.freeze()
        gc.enable()


def _load() -> None:
    import moto.server  # noqa: F401
    import samtranslator.translator.translator  # noqa: F401
    from moto.core.config import default_user_config

    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    # The interpreter recurses once per item of an inline Map: 500 items on one worker exceed the default limit.
    sys.setrecursionlimit(max(RECURSION_LIMIT, sys.getrecursionlimit()))
    # Importing a module applies its patches.
    from embedded_cloud.moto_patches import (  # noqa: F401
        alarms,
        applicationautoscaling,
        awslambda,
        change_sets,
        cloudformation,
        cloudwatch,
        distributed_map,
        dynamodb,
        ec2,
        ecs,
        events,
        iam,
        kms,
        logs,
        nested_stacks,
        route53,
        s3,
        sagemaker,
        server,
        serverless,
        service_metrics,
        stack_updates,
        state_machines,
        stepfunctions,
        tasks,
        transform,
        versions,
    )
