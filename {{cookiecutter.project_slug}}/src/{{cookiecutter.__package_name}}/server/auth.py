"""Who may call: clients that send one of the service's keys."""

import hmac
import ipaddress
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import Unauthenticated
from ..keys import digest, is_well_formed
from ..settings import Settings, http_url
from .request_record import ANONYMOUS, current

logger = logging.getLogger(__name__)

# For OpenAPI: how clients send a key.
SECURITY_SCHEMES = {
    "Bearer": {"type": "http", "scheme": "bearer"},
    "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

NOT_LOCAL = (
    "Refused a request without a key from another machine, or for a web page of another origin: set"
    " SERVICE_API_KEYS, list the origin in CORS_ORIGINS, or set ALLOW_ANONYMOUS=true, with which"
    " everybody can call OpenAI at your cost."
)


class Authentication:
    """Lets only requests with a key pass, but for routes marked as `routes.PUBLIC`.

    A middleware rather than a dependency: it also covers what is mounted or unknown, and refuses
    a request before its body is read.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._keys = settings.service_api_keys
        self._allow_anonymous = settings.allow_anonymous
        self._origins = frozenset(settings.cors_origins)
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not current.get().is_public:
            current.get().client_id = self._client_id(scope)
        elif scope["type"] == "websocket":
            try:
                self._client_id(scope)
            except Unauthenticated:
                await send({"type": "websocket.close", "code": 1008})  # policy violation
                return
        await self.app(scope, receive, send)

    def _client_id(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else ""
        key = headers.get("x-api-key") or bearer
        if self._keys and (key or not self._allow_anonymous):
            return self._id_of(key)
        origin = headers.get("origin")
        if not self._allow_anonymous and not self._is_for_local_use(scope, origin):
            if not self._has_warned:
                logger.error(NOT_LOCAL)
                self._has_warned = True
            raise Unauthenticated
        return ANONYMOUS

    def _is_for_local_use(self, scope: Scope, origin: str | None) -> bool:
        """Whether a client on this machine asks; if a browser, for a page of this machine.

        Other pages could call a service on loopback too: by a host name that changes its address
        (DNS rebinding).
        """
        # Both ends: some servers take the client's from X-Forwarded-For, which can be forged.
        if not (_is_local(scope.get("client")) and _is_local(scope.get("server"))):
            return False
        if origin is None or not self._origins.isdisjoint({origin, "*"}):
            return True
        url = http_url(origin)
        return url is not None and is_loopback(url.host)

    def _id_of(self, key: str) -> str:
        if not is_well_formed(key):
            raise Unauthenticated
        found, presented = None, digest(key)
        for known in self._keys:  # all of them: the time tells nothing
            if hmac.compare_digest(known.digest, presented):
                found = known.id
        if found is None:
            raise Unauthenticated
        return found


def is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_local(end: Sequence[Any] | None) -> bool:
    """Whether an end of a connection, a pair of host and port, is on this machine."""
    return not end or _is_local_host(str(end[0]))


@lru_cache(1_000)
def _is_local_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True  # a UNIX socket, or a test client that has names instead of addresses
    return is_loopback(host)
