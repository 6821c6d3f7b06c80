"""Serves the application under a prefix of the URL."""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """For a reverse proxy that removes the prefix from the path, or passes it on.

    If it removes the prefix, that must not begin as the path of an endpoint does, such as `/v1`.
    FastAPI's own parameter is deprecated in favor of the server's, which not all servers have.
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
