"""Dependencies of endpoints, as `Annotated` aliases."""

from typing import Annotated

from fastapi import Depends, Request

from ..errors import ShuttingDown
from ..server.request_record import current
from ..server.shutdown import GracefulShutdown
from ..upstream.lifetime import Lifetime
from ..upstream.openai_service import OpenAIService


async def _service(request: Request) -> OpenAIService:
    """The service for one request: when that ends, so do its calls and streams.

    Raises:
        ShuttingDown: the service is being stopped. In-flight requests already have the service and
            may make further calls.
    """
    state = request.state
    shutdown: GracefulShutdown = state.shutdown
    if shutdown.is_refusing:
        raise ShuttingDown
    service: OpenAIService = state.openai_service
    return service.within(Lifetime(state.is_cancelled, state.exit_stack, current.get()))


Service = Annotated[OpenAIService, Depends(_service)]
