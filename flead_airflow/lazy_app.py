"""ASGI apps of plugins, made when they are first asked.

Airflow imports every plugin into each task's process, which has no use for its API.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI


class LazyApp:
    """An ASGI app.

    Parameters
    ----------
    make
        Returns it.
    """

    def __init__(self, make: "Callable[[], FastAPI]") -> None:
        self._make = make
        self._app: FastAPI | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if self._app is None:
            self._app = self._make()
        await self._app(scope, receive, send)
