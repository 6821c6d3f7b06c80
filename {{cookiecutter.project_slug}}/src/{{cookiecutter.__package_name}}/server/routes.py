"""The application's routes, for middleware, which sees a request before it is routed."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.types import Scope

# `openapi_extra` of a route that needs no key and has no limits. All other routes do.
PUBLIC: dict[str, Any] = {"security": []}


class Route(NamedTuple):
    template: str
    """Of its path, such as `/items/{id}`."""
    is_public: bool


OTHER = Route("other", is_public=False)


class RouteTable:
    """Reads the routes at the first request, when all have been added."""

    def __init__(self, app: FastAPI, *, public_docs: bool) -> None:
        self._app = app
        docs = (app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url)
        self._public_paths = docs if public_docs else ()
        self._routes: list[tuple[re.Pattern[str], set[str], Route]] = []

    def find(self, scope: Scope) -> Route:
        """The route for a request's path and method; `OTHER` if there is none."""
        if not self._routes:
            self._routes = list(self._read())
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        for pattern, methods, route in self._routes:
            if (not methods or scope["method"] in methods) and pattern.match(path):
                return route
        return OTHER

    def _read(self) -> Iterator[tuple[re.Pattern[str], set[str], Route]]:
        for route in iter_route_contexts(self._app.routes):
            extra = getattr(route, "openapi_extra", None) or {}
            is_public = extra.get("security") == [] or route.path in self._public_paths
            found = Route(route.path_format or "other", is_public)
            if pattern := getattr(route, "path_regex", None):  # not of `Host`: they need a key
                yield pattern, route.methods or set(), found
