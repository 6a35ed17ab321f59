"""The secret of an edge, and CloudFront's check of its signatures."""

import base64
import json
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

URL = "https://api.example.com"


@cache
def key_pair() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def secret(**changed: Any) -> str:
    """Return the text of the secret, in which ``changed`` are set."""
    pem = key_pair().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    values = {"url": URL, "origin_secret": "current", "key_pair_id": "K1", "private_key": pem}
    return json.dumps({**values, **changed})


def signed_until(url: str) -> int:
    """Return the time, in seconds since 1970, until which CloudFront accepts a URL.

    Raises:
        InvalidSignature: it does not accept it at all.
    """
    resource, _, signature = url.rpartition("Expires=")
    fields = dict(parse_qsl(f"Expires={signature}"))
    expires = int(fields["Expires"])
    assert fields["Key-Pair-Id"] == "K1" and urlsplit(url).scheme == "https"
    statement = {"Resource": resource[:-1], "Condition": {"DateLessThan": {"AWS:EpochTime": expires}}}
    policy = json.dumps({"Statement": [statement]}, separators=(",", ":")).encode()
    raw = base64.b64decode(fields["Signature"].translate(str.maketrans("-_~", "+=/")))
    key_pair().public_key().verify(raw, policy, PKCS1v15(), SHA1())
    return expires
