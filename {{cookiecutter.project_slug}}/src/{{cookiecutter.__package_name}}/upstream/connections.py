"""What the connections to OpenAI have in common, whichever library makes them."""

import ssl
import urllib.request

import httpx2

from ..environment import load_settings
from ..settings import Settings, SettingsError, http_url

# OpenAI's side keeps connections for minutes; the load balancers on the way may for less.
KEEPALIVE_SECONDS = 60.0

# A host that does not even accept a connection within this will not do so later.
CONNECT_SECONDS = 5.0


def load_usable_settings() -> Settings:
    """`load_settings`, and the proxy and certificates that the environment names can be used.

    Raises:
        SettingsError: one of them is missing or wrong.
    """
    settings = load_settings()
    proxy_for(httpx2.URL(settings.openai_base_url))
    tls_context()
    return settings


def attempt_timeout(settings: Settings) -> httpx2.Timeout:
    seconds = settings.attempt_timeout_seconds or settings.deadline_seconds
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def tls_context() -> ssl.SSLContext:
    """Raises SettingsError if SSL_CERT_FILE or SSL_CERT_DIR names nothing of use."""
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # an ssl.SSLError is one
        raise SettingsError(
            "SSL_CERT_FILE or SSL_CERT_DIR cannot be read: name certificates in PEM, or unset it."
        ) from error


def proxy_for(url: httpx2.URL) -> str | None:
    """The proxy that the environment names: HTTPS_PROXY and the like, but not for NO_PROXY.

    Raises:
        SettingsError: it is neither an http:// nor an https:// URL.
    """
    proxies = urllib.request.getproxies()
    name = url.scheme if proxies.get(url.scheme) else "all"
    proxy = proxies.get(name)
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if http_url(proxy) is None:
        raise SettingsError(
            f"{name.upper()}_PROXY names no proxy that this service can use: name one by its"
            " http:// URL, or the host of OPENAI_BASE_URL in NO_PROXY."
        )
    return proxy
