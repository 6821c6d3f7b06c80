"""The service behind a reverse proxy, under a prefix of the URL."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from .conftest import NO_CERTIFICATES, QUESTION, Service, events, wait_until
from dev.offline_openai import OfflineOpenAI

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")  # where Debian has it

# Two ways to proxy the prefix: the first removes it from the path, the second passes it on.
NGINX_CONF = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  proxy_buffering off;
  proxy_set_header Host $http_host;
  server {{ listen 127.0.0.1:{removes}; location /chat/ {{ proxy_pass {service}/; }} }}
  server {{ listen 127.0.0.1:{passes_on}; location /chat/ {{ proxy_pass {service}; }} }}
}}
"""


@pytest.fixture
def service(serve: Callable[..., Service], offline: OfflineOpenAI) -> Service:
    return serve(root_path="/chat")


def check(client: httpx2.Client, prefix: str) -> None:
    """The documentation, what it links to, the endpoints."""
    page = client.get(f"{prefix}/docs").text
    found = re.search(r"url: '(.*?)'", page)
    assert found
    assert found[1] == "/chat/openapi.json"
    document = client.get(prefix + found[1].removeprefix("/chat")).json()
    assert document["servers"] == [{"url": "/chat"}]
    for path in document["paths"]:
        if "get" in document["paths"][path]:
            assert client.get(prefix + path).is_success
    assert client.post(f"{prefix}/v1/chat", json=QUESTION).is_success
    streamed = client.post(f"{prefix}/v1/chat/stream", json=QUESTION)
    assert events(streamed)[-1][0] == "done"
    assert client.get(f"{prefix}/chatter").status_code == 404


@pytest.mark.parametrize("prefix", ["", "/chat"])
def test_under_a_prefix_all_is_found(prefix: str, service: Service) -> None:
    """Whether the proxy removes the prefix or passes it on."""
    check(service.client, prefix)


@pytest.mark.parametrize("prefix", ["", "/chat"])
def test_a_redirect_stays_under_the_prefix(prefix: str, service: Service) -> None:
    response = service.client.get(f"{prefix}/livez/")
    assert response.headers["location"] == f"{service.url}/chat/livez"


def test_no_prefix_changes_nothing(serve: Callable[..., Service]) -> None:
    client = serve().client
    assert "'/openapi.json'" in client.get("/docs").text
    assert client.get("/chat/livez").status_code == 404


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def nginx(service: Service, tmp_path: Path) -> Iterator[list[str]]:
    """The URLs of two servers in front of the service."""
    ports = [free_port(), free_port()]
    conf = tmp_path / "nginx.conf"
    conf.write_text(NGINX_CONF.format(service=service.url, removes=ports[0], passes_on=ports[1]))
    with subprocess.Popen([str(NGINX), "-p", str(tmp_path), "-e", "stderr", "-c", conf]) as popen:
        try:
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            wait_until(lambda: all(map(listens, ports)))
            yield urls
        finally:
            popen.terminate()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return not client.connect_ex(("127.0.0.1", port))


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_behind_nginx_under_a_prefix_all_is_found(nginx: list[str]) -> None:
    for url in nginx:
        with httpx2.Client(base_url=url, verify=NO_CERTIFICATES) as client:
            check(client, "/chat")
            assert client.get("/chat/livez/").headers["location"] == f"{url}/chat/livez"
