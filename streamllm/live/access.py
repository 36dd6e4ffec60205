"""Who may connect: by the address that is listened on, a token, and the page that a browser comes from."""

import hmac
import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

NAMES = ("localhost", "localhost.localdomain")
"""Names of the loopback address, besides the addresses."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``, a name or an address."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() in NAMES


@dataclass(frozen=True)
class Access:
    """Says who may connect.

    Args:
        host: that is listened on.
        token: that clients have to show, in a header (``Authorization: Bearer …``), in the address (``?token=…``) or in
            their first message; None where none is wanted.
        origins: of pages besides our own, such as ``https://talks.example``.

    Raises: ValueError: others than this machine reach the host, and there is no token; or the token is short.
    """

    host: str
    token: str | None = None
    origins: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"host is {self.host}, which other machines reach, and there is no token: set STREAMLLM_TOKEN to a "
                "long random text, or leave host at 127.0.0.1"
            )
        if self.token is not None and len(self.token) < 16:
            raise ValueError(f"the token has {len(self.token)} characters; accepted are at least 16, at random")

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    def allows_origin(self, headers: Mapping[str, str]) -> bool:
        """Whether a request comes from a page of ours, from one that is named, or from no page. A loopback service is
        also reached by pages of others that a browser has open, and by names that others have let point to it."""
        here = headers.get("host", "")
        if self.local and not is_loopback(_name(here)):
            return False
        origin = headers.get("origin")
        if origin is None or origin in self.origins:
            return True
        found = urlsplit(origin)
        return found.scheme in ("http", "https") and found.netloc.lower() == here.lower()

    def shown(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
        """The token that a request shows, if any."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() in ("bearer", "token") else query.get("token")

    def accepts(self, shown: str | None) -> bool:
        """Whether it is the token, or none is wanted. Takes as long for a near miss as for any other."""
        return self.token is None or hmac.compare_digest((shown or "").encode(), self.token.encode())


def _name(host: str) -> str:
    """Of the header ``Host``, without the port."""
    return urlsplit(f"//{host}").hostname or ""
