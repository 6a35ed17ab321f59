"""Application Auto Scaling: moto stores policies and never applies them."""

import json
from typing import Any

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse


def describe_scaling_activities(_self: Any) -> str:
    """AWS lists scaling activities; moto does not implement the call."""
    return json.dumps({"ScalingActivities": []})


ApplicationAutoScalingResponse.describe_scaling_activities = describe_scaling_activities
