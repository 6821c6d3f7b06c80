"""How much a client may use: applies RATE_LIMIT and TOKEN_LIMIT to requests."""

import ipaddress
from contextlib import AsyncExitStack

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..observer import Spending
from ..settings import Settings
from .rate_limiter import RateLimiter
from .request_record import ANONYMOUS, current
from .windows import Count, Policy, limit_field, policy_field


class RateLimit:
    """Refuses requests over RATE_LIMIT before they wait for anything.

    Lets calls of OpenAI reserve tokens by the `reserve` of the request's record. What they did not
    spend is given back when the request has ended.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._requests = [Policy("requests", *window) for window in settings.rate_limit]
        self._tokens = [Policy("tokens", *window) for window in settings.token_limit]
        self._policy_field = policy_field([*self._requests, *self._tokens])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or current.get().is_public:
            await self.app(scope, receive, send)
            return
        record = current.get()
        limiter: RateLimiter = scope["state"]["rate_limiter"]
        client = record.client_id if record.client_id != ANONYMOUS else address_of(scope)
        counts: list[Count] = []

        async with AsyncExitStack() as at_end:

            async def reserve_tokens(cost: int) -> Spending:
                reservation = await limiter.reserve(client, self._tokens, cost)
                counts.extend(reservation.counts)
                spending = Spending(cost)
                at_end.push_async_callback(limiter.settle, reservation, spending)
                return spending

            async def send_with_limits(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    headers.setdefault("RateLimit", limit_field(counts))
                    headers["RateLimit-Policy"] = self._policy_field
                await send(message)

            if self._requests:
                counts.extend((await limiter.reserve(client, self._requests, 1)).counts)
            if self._tokens:
                record.reserve = reserve_tokens
            await self.app(scope, receive, send_with_limits)


def address_of(scope: Scope) -> str:
    """The client's address; of IPv6, the network of 64 bits that one client has."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a UNIX socket has none
        return ANONYMOUS
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
