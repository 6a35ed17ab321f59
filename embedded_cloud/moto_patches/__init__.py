"""What moto 5.2.5 does differently from AWS and this project relies on; each patch says what AWS does."""

import functools
import gc
import sys

RECURSION_LIMIT = 20_000


@functools.cache
def apply() -> None:
    """Load moto and patch it in this process. A second call does nothing."""
    # A fifth of the start, and of every state later on, would go into looking for garbage among what stays for good.
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
    # The interpreter of state machines recurses once per item of an inline Map: 500 items on one worker hang it.
    sys.setrecursionlimit(max(RECURSION_LIMIT, sys.getrecursionlimit()))
    # Importing a module of patches is what applies it.
    from embedded_cloud.moto_patches import (  # noqa: F401
        applicationautoscaling,
        awslambda,
        cloudformation,
        dynamodb,
        ecs,
        events,
        nested_stacks,
        s3,
        sagemaker,
        server,
        stepfunctions,
        tasks,
    )
