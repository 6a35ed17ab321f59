"""KMS: keys from CloudFormation."""

import json
from typing import Any

from moto.kms.models import Key

from embedded_cloud.moto_patches.around import around


@around(Key, "create_from_cloudformation_json")
def store_the_policy_as_text(original: Any, cls: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS describes a key that a stack has created; moto fails, because it keeps the policy as a dictionary."""
    key = original(cls, *args, **kwargs)
    key.policy = json.dumps(key.policy)
    return key
