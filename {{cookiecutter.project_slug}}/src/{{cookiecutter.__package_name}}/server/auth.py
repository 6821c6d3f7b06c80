"""Who may call: clients that send one of the service's keys."""

import hmac
import ipaddress
import logging

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import Unauthenticated
from ..keys import digest, is_well_formed
from ..settings import Settings
from .request_record import ANONYMOUS, current

logger = logging.getLogger(__name__)

# For OpenAPI: how clients send a key.
SECURITY_SCHEMES = {
    "Bearer": {"type": "http", "scheme": "bearer"},
    "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

OPEN_DOOR = (
    "The service is reached from other machines without keys: set SERVICE_API_KEYS, or"
    " ALLOW_ANONYMOUS=true to let everybody call OpenAI at your cost."
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
        key = headers.get("x-api-key") or (
            credentials.strip() if scheme.lower() == "bearer" else ""
        )
        if self._keys and (key or not self._allow_anonymous):
            return self._id_of(key)
        if not self._allow_anonymous and not is_loopback((scope.get("server") or [""])[0]):
            if not self._has_warned:
                logger.error(OPEN_DOOR)
                self._has_warned = True
            raise Unauthenticated
        return ANONYMOUS

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
    """Whether only this machine reaches the address. A UNIX socket has a path instead of one."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost", "testserver") or "/" in host  # TestClient's, a path
