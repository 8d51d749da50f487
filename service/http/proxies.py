"""What proxies in front of the server say of a request: its client, its scheme, and the prefix of its path."""

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.settings import ROOT_PATH


class BehindProxies:
    """Wraps the whole application; the header X-Forwarded-Prefix goes before the setting, where a proxy is trusted.

    A proxy may pass the prefix on or take it off. The application sees `root_path`, and it in front of `path`.
    """

    def __init__(self, app: ASGIApp, root_path: str | None, trusted_proxies: str | None) -> None:
        self._proxied = ProxyHeadersMiddleware(app, trusted_proxies) if trusted_proxies else None  # type: ignore[arg-type]
        self._app: Any = self._proxied or app  # Starlette's types of an application are not uvicorn's
        self._root_path = root_path or ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (root_path := self._prefix_of(scope)):
            path = scope["path"]
            if not f"{path}/".startswith(f"{root_path}/"):
                path = root_path + path
            scope = {**scope, "root_path": root_path, "path": path}
        await self._app(scope, receive, send)

    def _prefix_of(self, scope: Scope) -> str:
        """What the address has in front of ours; a header that is no path is passed over."""
        if self._proxied and str((scope.get("client") or ("",))[0]) in self._proxied.trusted_hosts:
            told = [value for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
            prefix: str = told[-1].decode("latin-1").strip().rstrip("/") if told else ""
            if ROOT_PATH.fullmatch(prefix):
                return prefix
        return self._root_path


def own_path(scope: Scope) -> str:
    """A request's path without the prefix, as the routes have it."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(prefix)
