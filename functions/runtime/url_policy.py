"""Configuration of the URLs that a function may open for its callers."""

from functions.runtime.config import Config, Names
from functions.runtime.safe_http import Policy


class UrlConfig(Config):
    """Allowed URLs.

    Attributes:
        url_schemes: allowed schemes.
        url_networks: private networks that are allowed, in CIDR notation.
    """

    url_schemes: Names = ("https",)
    url_networks: Names = ()

    @property
    def outbound(self) -> Policy:
        """Policy for these URLs."""
        return Policy(schemes=self.url_schemes, networks=self.url_networks)
