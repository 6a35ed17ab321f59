"""Webhook signing secrets. Each caller has its own, derived from the stack's secret."""

import base64
import hashlib
import hmac


def signing_secret(stack_secret: str, caller_id: str) -> str:
    """Return the secret that signs a caller's webhooks, in the format of Standard Webhooks.

    Args:
        stack_secret: the secret that all callers' secrets are derived from.
        caller_id: the API key's id, or the id of an IAM principal.

    Returns:
        ``whsec_`` and the base64 of 32 bytes.
    """
    digest = hmac.new(stack_secret.encode(), caller_id.encode(), hashlib.sha256).digest()
    return f"whsec_{base64.b64encode(digest).decode()}"
