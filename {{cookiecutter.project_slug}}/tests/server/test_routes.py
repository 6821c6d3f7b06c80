"""Every route needs a key, unless it says otherwise."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from ..conftest import CLIENT_KEY, CLIENT_PAIR, Service, app, exchange, make_settings, serving
from ..conftest import routes as service_routes
from dev.offline_openai import OfflineOpenAI

PUBLIC = service_routes.PUBLIC
OPEN = {f"{method} /{path}" for path in ("livez", "readyz") for method in ("GET", "HEAD")}
OPEN.add("GET /metrics")
DOCS = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
WITH_KEY = f"x-api-key: {CLIENT_KEY}"


def status(service: Service, head: str, *headers: str) -> int:
    return int(exchange(service, head, *headers).split()[1])


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    return serve(service_api_keys=CLIENT_PAIR)


def with_owners_routes(offline: OfflineOpenAI, **changed: Any) -> FastAPI:
    """The application with all kinds of routes that an owner may add."""
    application = app.create_app(make_settings(offline, service_api_keys=CLIENT_PAIR, **changed))
    router = APIRouter(prefix="/router")
    mounted = FastAPI()

    @application.get("/added")
    @application.put("/added/{item}")
    @application.post("/half-open")
    @application.get("/half-open", openapi_extra=PUBLIC)
    @application.get("/open/{item}", openapi_extra=PUBLIC)
    @router.get("/added")
    @router.get("/open", openapi_extra=PUBLIC)
    @mounted.get("/added")
    @mounted.get("/open", openapi_extra=PUBLIC)  # says it to another application
    async def endpoint() -> str:
        return "let in"

    async def starlette_endpoint(_: Request) -> PlainTextResponse:
        return PlainTextResponse("let in")

    outer = APIRouter(prefix="/outer")
    outer.include_router(router)
    application.include_router(router)
    application.include_router(outer)
    application.mount("/mounted", mounted)
    application.add_route("/starlette", starlette_endpoint)
    application.router.routes.append(
        Mount("/group", routes=[Route("/starlette", starlette_endpoint)])
    )
    return application


ADDED = {
    "GET /added",
    "PUT /added/1",
    "POST /half-open",
    "GET /router/added",
    "GET /outer/router/added",
    "GET /mounted/added",
    "GET /mounted/open",
    "GET /mounted/docs",
    "GET /starlette",
    "HEAD /starlette",
    "GET /group/starlette",
}
ADDED_OPEN = {"GET /half-open", "GET /open/1", "GET /router/open", "GET /outer/router/open"}


def test_every_route_of_the_service_needs_a_key(service: Service, offline: OfflineOpenAI) -> None:
    """Those of endpoints that an owner has added to `api/`, too."""
    application = app.create_app(make_settings(offline, service_api_keys=CLIENT_PAIR))
    routes = {
        f"{method} {re.sub('{.*?}', '1', str(route.path))}": route
        for route in iter_route_contexts(application.routes)
        for method in route.methods or {"GET"}
    }
    found = {head for head in routes if status(service, head) != 401}
    assert found >= OPEN
    assert not [
        head
        for head in found - OPEN
        if (getattr(routes[head], "openapi_extra", None) or {}).get("security") != []
    ]
    assert {"POST /v1/chat", "POST /v1/chat/stream", *(f"GET {path}" for path in DOCS)} <= {
        *routes
    } - found


@pytest.mark.parametrize("root_path", ["", "/prefix"])
def test_added_routes_need_a_key_unless_they_say_otherwise(
    root_path: str, offline: OfflineOpenAI
) -> None:
    """For the method that says it only."""
    with serving(with_owners_routes(offline, root_path=root_path)) as service:
        for prefix in {"", root_path}:
            heads = {head: head.replace("/", f"{prefix}/", 1) for head in ADDED | ADDED_OPEN}
            let_in = {head for head, sent in heads.items() if status(service, sent) == 200}
            assert let_in == ADDED_OPEN
            with_key = {h for h, sent in heads.items() if status(service, sent, WITH_KEY) == 200}
            assert with_key == ADDED | ADDED_OPEN, "they exist"


def test_a_route_of_another_host_needs_a_key(offline: OfflineOpenAI) -> None:
    application = app.create_app(make_settings(offline, service_api_keys=CLIENT_PAIR))
    application.host("x", Router([Route("/hosted", lambda _: PlainTextResponse("let in"))]))
    with serving(application) as service:
        assert status(service, "GET /livez") == 200
        assert status(service, "GET /hosted") == 401
        assert status(service, "GET /hosted", WITH_KEY) == 200


def test_a_route_added_while_the_service_runs_needs_a_key(offline: OfflineOpenAI) -> None:
    application = app.create_app(make_settings(offline, service_api_keys=CLIENT_PAIR))
    with serving(application) as service:
        assert status(service, "GET /livez") == 200
        application.get("/later")(lambda: "let in")
        assert status(service, "GET /later") == 401
        assert status(service, "GET /later", WITH_KEY) == 200


RESEMBLING = [
    "GET /nowhere",
    "GET /",
    "POST /livez",
    "DELETE /readyz",
    "OPTIONS /metrics",
    "BREW /livez",
    "get /livez",
    "GET /livez/",
    "GET //livez",
    "GET /livez//",
    "GET /./livez",
    "GET /LIVEZ",
    "GET /livez%2f",
    "GET /livez%00",
    "GET /livez%20",
    "GET /livez;x",
    "GET /livez%3f",
    "GET /livezz",
    "GET /xlivez",
    "GET /livez/v1/chat",
    "POST /livez/../v1/chat",
    "POST /livez/..%2fv1/chat",
    "POST /livez%2f..%2fv1%2fchat",
    "POST /livez/%2e%2e/v1/chat",
    "POST /v1/chat/",
    "POST //v1/chat",
    "POST /v1%2fchat",
    "POST /v1/chat%3f/livez",
    "POST /v1/chat?/livez",
    "POST /v1/chat#/livez",
    "POST http://x/v1/chat",
    "POST /v1/../livez",
    "GET /docs/",
    "GET /docs/..%2flivez",
]


@pytest.mark.parametrize("head", RESEMBLING)
def test_what_resembles_an_open_path_needs_a_key(head: str, service: Service) -> None:
    """Nothing that is not exactly an open route tells whether it exists."""
    assert status(service, head) in (401, 400)  # 400: uvicorn's parser does not know the method


@pytest.fixture
def prefixed(serve: Callable[..., Service]) -> Service:
    return serve(service_api_keys=CLIENT_PAIR, root_path="/prefix")


@pytest.mark.parametrize("head", sorted(OPEN))
def test_under_a_prefix_open_routes_are_open(head: str, prefixed: Service) -> None:
    assert status(prefixed, head) == 200
    assert status(prefixed, head.replace("/", "/prefix/")) == 200


@pytest.mark.parametrize(
    "head",
    [
        "POST /v1/chat",
        "POST /prefix/v1/chat",
        "POST /prefix",
        "GET /prefix/",
        "GET /prefix/docs",
        "GET /prefix/prefix/livez",
        "GET /prefixlivez",
        "GET /prefix//livez",
        "GET //prefix/livez",
        "GET /prefix/livez/",
        "GET /prefix%2f%2flivez",
        "POST /prefix/livez",
        "POST /livez/prefix/v1/chat",
        "POST /prefix/livez/..%2fv1/chat",
        "POST /prefix/../v1/chat",
    ],
)
def test_under_a_prefix_others_need_a_key(head: str, prefixed: Service) -> None:
    assert status(prefixed, head) == 401


def test_the_documentation_is_open_if_set(serve: Callable[..., Service]) -> None:
    closed = serve(service_api_keys=CLIENT_PAIR)
    public = serve(service_api_keys=CLIENT_PAIR, public_docs=True)
    for path in DOCS:
        assert status(closed, f"GET {path}") == 401
        assert status(closed, f"GET {path}", WITH_KEY) == 200
        assert status(public, f"GET {path}") == 200
    assert status(public, "POST /v1/chat") == 401
    assert status(public, "GET /docs/other") == 401
