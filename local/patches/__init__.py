"""What moto 5.2.5 does differently from AWS and this project relies on; each patch says what AWS does."""

import sys

RECURSION_LIMIT = 20_000


def apply() -> None:
    """Patch moto in this process. A second call does nothing."""
    from moto.core.config import default_user_config

    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    # The interpreter of state machines recurses once per item of an inline Map: 500 items on one worker hang it.
    sys.setrecursionlimit(max(RECURSION_LIMIT, sys.getrecursionlimit()))
    # Importing a module of patches is what applies it.
    from local.patches import awslambda, cloudformation, ecs, events, s3, sagemaker, stepfunctions, tasks  # noqa: F401
