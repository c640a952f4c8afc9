"""What keeps other sites from acting with a reader's cookie.

A page of ours sends the header `HX-Request`, which forms of other sites cannot and their scripts
may not; and browsers say where a request comes from (Fetch Metadata, W3C; Origin, RFC 6454).
"""

from typing import Annotated, Final
from urllib.parse import urlsplit

from airflow.sdk.configuration import conf
from fastapi import Header, HTTPException, Request

REFUSED: Final = "actions are accepted from the pages of this server only"


def requires_own_page(
    request: Request,
    hx_request: Annotated[str | None, Header()] = None,
    origin: Annotated[str | None, Header()] = None,
    sec_fetch_site: Annotated[str | None, Header()] = None,
) -> None:
    """Refuse an action that another site may have sent.

    Raises
    ------
    HTTPException
        403.
    """
    if hx_request != "true":
        raise HTTPException(403, REFUSED)
    if sec_fetch_site is not None and sec_fetch_site != "same-origin":
        raise HTTPException(403, REFUSED)
    if origin is not None and not is_own(urlsplit(origin).netloc, request):
        raise HTTPException(403, REFUSED)


def is_own(host: str, request: Request) -> bool:
    """Whether a host is this server; an opaque origin (`null`) has none, and is nobody's."""
    # Behind a proxy the server is known by another name than the one that it was asked by.
    base = urlsplit(conf.get("api", "base_url", fallback="")).netloc
    return bool(host) and host in {request.headers.get("host"), base}
