"""Which URLs of strangers a function may open."""

from typing import Annotated, Any, TypeAlias

from pydantic import field_validator
from pydantic_settings import NoDecode

from core.outbound import Policy
from functions.shared.config import Config

Names: TypeAlias = Annotated[tuple[str, ...], NoDecode]
"""Names that an environment variable separates by commas."""


class UrlConfig(Config):
    """What is opened of what callers name.

    Attributes:
        url_schemes: of their URLs.
        url_networks: networks that these may lead to although they are private.
    """

    url_schemes: Names = ("https",)
    url_networks: Names = ()

    @field_validator("url_schemes", "url_networks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @property
    def outbound(self) -> Policy:
        """What such URLs may lead to."""
        return Policy(schemes=self.url_schemes, networks=self.url_networks)
