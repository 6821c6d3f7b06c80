"""Timeouts, proxy and TLS of the connections to OpenAI, for every handler style."""

import ssl
import urllib.request

import httpx2

from ..environment import load_settings
from ..settings import Settings, SettingsError, http_url

# Idle connections are closed after this: OpenAI keeps them for minutes, load balancers for less.
KEEPALIVE_SECONDS = 60.0

# Limit for each TCP connect and TLS handshake; a reply may take much longer.
CONNECT_SECONDS = 5.0


def load_usable_settings() -> Settings:
    """`load_settings`; also checks the proxy and the certificates that the environment names.

    Raises:
        SettingsError: a setting is missing or wrong, or the proxy or certificates are unusable.
    """
    settings = load_settings()
    proxy_for(httpx2.URL(settings.openai_base_url))
    tls_context()
    return settings


def attempt_timeout(settings: Settings) -> httpx2.Timeout:
    seconds = settings.attempt_timeout_seconds or settings.deadline_seconds
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def tls_context() -> ssl.SSLContext:
    """The default context.

    Raises:
        SettingsError: SSL_CERT_FILE or SSL_CERT_DIR cannot be read.
    """
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # includes ssl.SSLError
        raise SettingsError(
            "SSL_CERT_FILE or SSL_CERT_DIR cannot be read: name certificates in PEM, or unset it."
        ) from error


def proxy_for(url: httpx2.URL) -> str | None:
    """The proxy for `url` from HTTPS_PROXY, HTTP_PROXY or ALL_PROXY; None if NO_PROXY matches.

    Raises:
        SettingsError: the proxy is neither an http:// nor an https:// URL.
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
