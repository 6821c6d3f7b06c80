"""What an endpoint can ask for."""

from typing import Annotated

from fastapi import Depends, Request

from ..errors import ShuttingDown
from ..server.shutdown import GracefulShutdown
from ..upstream.openai_service import OpenAIService


async def _service(request: Request) -> OpenAIService:
    """The service for one request.

    Raises:
        ShuttingDown: the service is being stopped. Only new requests are refused, for those in
            flight have got it before and may go on to make further calls.
    """
    shutdown: GracefulShutdown = request.state.shutdown
    if shutdown.has_begun:
        raise ShuttingDown
    service: OpenAIService = request.state.openai_service
    return service


Service = Annotated[OpenAIService, Depends(_service)]
