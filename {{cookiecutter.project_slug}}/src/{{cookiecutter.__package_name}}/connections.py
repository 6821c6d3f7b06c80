"""What the connections to OpenAI have in common, whichever library makes them."""

import urllib.request

import httpx2

from .settings import Settings

# OpenAI's side keeps connections for minutes; the load balancers on the way may for less.
KEEPALIVE_SECONDS = 60.0

# A host that does not even accept a connection within this will not do so later.
CONNECT_SECONDS = 5.0


def attempt_timeout(settings: Settings) -> httpx2.Timeout:
    seconds = settings.attempt_timeout_seconds
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def proxy_for(url: httpx2.URL) -> str | None:
    """The proxy that the environment names: HTTPS_PROXY and the like, but not for NO_PROXY."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
