"""Which URLs of strangers a function may open."""

from functions.runtime.config import Config, Names
from functions.runtime.safe_http import Policy


class UrlConfig(Config):
    """What is opened of what callers name.

    Attributes:
        url_schemes: of their URLs.
        url_networks: networks that these may lead to although they are private.
    """

    url_schemes: Names = ("https",)
    url_networks: Names = ()

    @property
    def outbound(self) -> Policy:
        """What such URLs may lead to."""
        return Policy(schemes=self.url_schemes, networks=self.url_networks)
