"""How much a client may use: applies RATE_LIMIT and TOKEN_LIMIT to requests."""

import ipaddress
from contextlib import AsyncExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import RateLimited
from ..observer import Spending
from ..settings import Settings
from .rate_limiter import RateLimiter, Reservation
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
        client = address_of(scope) if record.client_id == ANONYMOUS else record.client_id
        counts: list[Count] = []

        async def reserve(policies: list[Policy], cost: int) -> Reservation:
            reservation = await limiter.reserve(client, policies, cost)
            counts.extend(reservation.counts)
            record.headers["RateLimit"] = limit_field(counts)
            if violated := reservation.violated():
                names = [count.policy.name for count in violated]
                raise RateLimited(names, max(count.wait() for count in violated))
            return reservation

        async with AsyncExitStack() as at_end:

            async def reserve_tokens(cost: int) -> Spending:
                reservation = await reserve(self._tokens, cost)
                spending = Spending(cost)
                at_end.push_async_callback(limiter.settle, reservation, spending)
                return spending

            record.headers["RateLimit-Policy"] = self._policy_field
            if self._requests:
                await reserve(self._requests, 1)
            if self._tokens:
                record.reserve = reserve_tokens
            await self.app(scope, receive, send)


def address_of(scope: Scope) -> str:
    """The client's address; of IPv6, the network of 64 bits that one client has."""
    try:
        address = ipaddress.ip_address(scope["client"][0])
    except (TypeError, ValueError):  # of a UNIX socket
        return ANONYMOUS
    if address.version == 6 and not address.ipv4_mapped:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)
