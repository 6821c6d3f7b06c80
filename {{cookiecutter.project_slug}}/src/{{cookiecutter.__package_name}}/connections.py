"""What the connections to OpenAI have in common, whichever library makes them."""

import urllib.request

import httpx2

from .settings import Settings, SettingsError

# OpenAI's side keeps connections for minutes; the load balancers on the way may for less.
KEEPALIVE_SECONDS = 60.0

# A host that does not even accept a connection within this will not do so later.
CONNECT_SECONDS = 5.0


def attempt_timeout(settings: Settings) -> httpx2.Timeout:
    seconds = settings.attempt_timeout_seconds
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def proxy_for(url: httpx2.URL) -> str | None:
    """The proxy that the environment names: HTTPS_PROXY and the like, but not for NO_PROXY.

    Raises:
        SettingsError: it is of a kind that not all of our clients know.
    """
    proxies = urllib.request.getproxies()
    name = url.scheme if proxies.get(url.scheme) else "all"
    proxy = proxies.get(name)
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    scheme, has_scheme, _ = proxy.partition("://")
    if not has_scheme:
        return f"http://{proxy}"
    if scheme not in ("http", "https"):
        raise SettingsError(
            f"{name.upper()}_PROXY names a {scheme} proxy, which this service cannot use: "
            f"name an http one, or the host of OPENAI_BASE_URL in NO_PROXY."
        )
    return proxy
