"""How much a client may use: applies RATE_LIMIT and TOKEN_LIMIT to requests."""

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import RateLimited
from ..observer import Operation
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
        self._max_output_tokens = settings.max_output_tokens or 0
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

        async def reserve_tokens(operation: Operation) -> None:
            reserved.append(await reserve(self._tokens, record.most_tokens(operation)))

        reserved: list[Reservation] = []
        record.headers["RateLimit-Policy"] = self._policy_field
        if self._requests:
            await reserve(self._requests, 1)
        if self._tokens:
            record.reserve, record.max_output_tokens = reserve_tokens, self._max_output_tokens
        try:
            await self.app(scope, receive, send)
        finally:
            # All that was spent counts in the windows of the first call.
            for i, reservation in enumerate(reserved):
                spent = record.spent_tokens if i == 0 else 0
                await limiter.settle(reservation, spent)


def address_of(scope: Scope) -> str:
    """The client's address; of IPv6, the network of 64 bits that one client has."""
    try:
        address = ipaddress.ip_address(scope["client"][0])
    except (TypeError, ValueError):  # of a UNIX socket
        return ANONYMOUS
    if address.version == 6 and not address.ipv4_mapped:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)
