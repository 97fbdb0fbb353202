"""The transport to OpenAI-compatible endpoints over HTTP (aiohttp, in the extra `serve`)."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from harness.errors import ConfigError

if TYPE_CHECKING:
    import aiohttp


class Response(Protocol):
    """An answer that is being received."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; names in any case."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The body, in pieces, as they arrive."""


class TransportError(Exception):
    """The connection failed."""


class Unreachable(TransportError):
    """No connection could be made: nobody listens there, or the name is unknown."""


Post = Callable[[str, dict[str, Any]], AbstractAsyncContextManager[Response]]
"""Sends a JSON body to a path below the base URL."""


def check_base_url(url: str) -> str:
    """A base URL such as `http://127.0.0.1:8000/v1`, without its last slash.

    Raises:
        ConfigError: It is none, or holds a user or password, which would end up in logs.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:  # before anything that quotes the URL
        raise ConfigError(
            "a base URL holds no user or password; name the key's variable with --api-key-env or in endpoints.yaml"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"{url!r} is no base URL; give one such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def origin_of(url: str) -> str:
    """The origin of a URL (RFC 6454): scheme, host in small letters, and the port that it names or implies.

    Raises:
        ConfigError: It is no base URL, or its port is none.
    """
    parts = urlsplit(check_base_url(url))
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except ValueError:
        raise ConfigError(f"{url!r} has no port that can be used; give one from 1 to 65535") from None
    host = str(parts.hostname)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def is_local(url: str) -> bool:
    """Whether a base URL names this machine: `localhost` or a loopback address."""
    host = urlsplit(check_base_url(url)).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HttpTransport:
    """Posts to one base URL; use it as an asynchronous context manager.

    Redirects are not followed and proxies of the environment not used: a key goes to the origin that was named, or
    nowhere. Connections are kept and not limited in number, so that the client never queues.
    """

    def __init__(self, base_url: str, *, api_key: str | None = None, connect_timeout: float | None = None) -> None:
        """Keep the address; `api_key` is sent as a bearer token, `connect_timeout` is in seconds."""
        self._base = check_base_url(base_url)
        self._connect_timeout = connect_timeout
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> HttpTransport:
        """Open.

        Raises:
            ConfigError: aiohttp is not installed.
        """
        try:
            import aiohttp
        except ImportError:
            raise ConfigError("an endpoint needs aiohttp; pip install 'sparsebench[serve]'") from None
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            connector=aiohttp.TCPConnector(limit=0),
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any]) -> AsyncIterator[Response]:
        """Send a request; a failure of the connection, also while the answer is read, is a `TransportError`."""
        import aiohttp

        assert self._session is not None
        try:
            async with self._session.post(f"{self._base}/{path}", json=body, allow_redirects=False) as response:
                yield _Response(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(type(error).__name__) from error
        except aiohttp.ClientError as error:
            raise TransportError(type(error).__name__) from error


class _Response:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        async for piece in self._response.content.iter_any():
            yield piece
