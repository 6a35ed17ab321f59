"""Application Auto Scaling: moto keeps policies, and nothing acts on them."""

import json
from typing import Any

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse


def describe_scaling_activities(_self: Any) -> str:
    """AWS tells what it scaled; moto does not know the call."""
    return json.dumps({"ScalingActivities": []})


ApplicationAutoScalingResponse.describe_scaling_activities = describe_scaling_activities
