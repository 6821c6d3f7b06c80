"""Dependencies of endpoints, as `Annotated` aliases."""

from typing import Annotated

from fastapi import Depends, Request

from ..errors import ShuttingDown
from ..server.shutdown import GracefulShutdown
from ..upstream.openai_service import OpenAIService


async def _service(request: Request) -> OpenAIService:
    """The service for one request.

    Raises:
        ShuttingDown: the service is being stopped. In-flight requests already have the service and
            may make further calls.
    """
    shutdown: GracefulShutdown = request.state.shutdown
    if shutdown.has_begun:
        raise ShuttingDown
    service: OpenAIService = request.state.openai_service
    return service


Service = Annotated[OpenAIService, Depends(_service)]
