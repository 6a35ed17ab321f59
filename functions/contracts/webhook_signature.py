"""Signatures of webhooks. The stack has one secret, and each caller has one of their own that is derived from it."""

import base64
import hashlib
import hmac
import time


def signing_secret(master: str, key_id: str) -> str:
    """Return the secret that a caller's webhooks are signed with: ``whsec_`` and 43 characters.

    Args:
        master: the stack's secret.
        key_id: the caller.
    """
    digest = hmac.new(master.encode(), key_id.encode(), hashlib.sha256).digest()
    return f"whsec_{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message: ``v1=`` and 64 hexadecimal digits.

    Args:
        secret: the caller's.
        timestamp: when it is sent, in seconds since 1970. It is signed too, so that nobody can send it again later.
        body: the message.
    """
    return f"v1={hmac.new(secret.encode(), b'%d.' % timestamp + body, hashlib.sha256).hexdigest()}"


def verify(secret: str, timestamp: str, signature: str, body: bytes, tolerance_s: int = 300) -> bool:
    """Return whether a message is the stack's, and was sent just now.

    Args:
        secret: yours, ``whsec_...``.
        timestamp: the header X-PBR-Timestamp.
        signature: the header X-PBR-Signature.
        body: the request's bytes, as they came.
        tolerance_s: how far the clocks may be apart, and how long a message may travel.
    """
    expected = "v1=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    genuine = hmac.compare_digest(expected.encode(), signature.encode())
    return genuine and abs(time.time() - int(timestamp)) <= tolerance_s
