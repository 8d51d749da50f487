"""What proxies in front of the server say of a request: its client, its scheme, and the prefix of its path."""

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.settings import ROOT_PATH


class BehindProxies:
    """Wraps the whole application; the header X-Forwarded-Prefix goes before the setting, where a proxy is trusted.

    A proxy may pass the prefix on or take it off. The application sees `root_path`, and it in front of `path`.
    """

    def __init__(self, app: ASGIApp, root_path: str | None, trusted_proxies: str | None) -> None:
        self._app = ProxyHeadersMiddleware(app, trusted_proxies or [])  # type: ignore[arg-type]  # as Starlette's types
        self._root_path = root_path or ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (root_path := self._prefix_of(scope)):
            path = scope["path"]
            if not f"{path}/".startswith(f"{root_path}/"):
                path = root_path + path
            scope = {**scope, "root_path": root_path, "path": path}
        await self._app(scope, receive, send)  # type: ignore[arg-type]

    def _prefix_of(self, scope: Scope) -> str:
        """What the address has in front of ours; a header that is no path is passed over."""
        told = [value for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
        if told and str((scope.get("client") or ("",))[0]) in self._app.trusted_hosts:
            prefix: str = told[-1].decode("latin-1").strip().rstrip("/")
            if ROOT_PATH.fullmatch(prefix):
                return prefix
        return self._root_path


def own_path(scope: Scope) -> str:
    """A request's path without the prefix, as the routes have it."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(prefix)
