"""Serves the application under a prefix of the URL."""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Works with a reverse proxy that strips the prefix, and with one that passes it on.

    If the proxy strips it, the prefix must not equal the start of an endpoint's path, such as
    `/v1`. FastAPI's own `root_path` is deprecated, and not all servers have such an option.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if not f"{path}/".startswith(f"{self._root_path}/"):
                path = self._root_path + path  # ASGI: the path includes the root path
            scope = {**scope, "root_path": self._root_path, "path": path}
        await self.app(scope, receive, send)
