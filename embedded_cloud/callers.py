"""Callers of the cloud's API, by access key: users, the cloud itself, and processes that act with a role."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

OWN_KEY: Final = "embedded-cloud"
"""Access key of the cloud itself, and start of the access keys of its roles."""

_SCOPE: Final = re.compile(r"([^/,=\s]+)/\d{8}/[^/]+/([^/]+)/aws4_request")


@dataclass(frozen=True)
class Caller:
    """A caller: its access key, and the service that the request is signed for."""

    access_key: str
    service: str = "s3"

    @property
    def role(self) -> str:
        """Name of its role; empty for users and the cloud itself, whose calls are not restricted."""
        return self.access_key.removeprefix(f"{OWN_KEY}:") if self.access_key.startswith(f"{OWN_KEY}:") else ""


def access_key(role_arn: str) -> str:
    """Return the access key of a role, given by its ARN or name; that of the cloud itself if there is no role."""
    return f"{OWN_KEY}:{role_arn.rpartition('/')[2]}" if role_arn else OWN_KEY


def is_own(authorization: str) -> bool:
    """Return whether an Authorization header is that of the cloud itself or of one of its roles."""
    return f"Credential={OWN_KEY}/" in authorization or f"Credential={OWN_KEY}:" in authorization


def caller_of(headers: Mapping[str, str], query: Mapping[str, str], form: Mapping[str, str]) -> Caller:
    """Return the caller of a request, which signs a header, the URL, or the policy of a form."""
    signed = (headers.get("Authorization", ""), query.get("X-Amz-Credential", ""), form.get("x-amz-credential", ""))
    for text in signed:
        if match := _SCOPE.search(text):
            return Caller(*match.groups())
    return Caller(query.get("AWSAccessKeyId") or form.get("AWSAccessKeyId") or "")
