"""From the HTTP library's requests to ours."""

import hashlib

from aiohttp import web

from archiver.emulator.gateway import Request, decode_query

_FORM = "application/x-www-form-urlencoded"


def headers_of(request: web.BaseRequest) -> dict[str, str]:
    """Header names in lower case; bytes that are no UTF-8 become ``�``, and match nothing."""
    return {
        name.lower(): value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for name, value in request.headers.items()
    }


async def rpc_request(request: web.Request) -> Request:
    """An RPC request. Older SDKs post their parameters as a form."""
    body = await request.read()
    form = decode_query(body.decode("utf-8", "replace")) if request.content_type == _FORM else {}
    return Request(
        method=request.method,
        query=decode_query(request.rel_url.raw_query_string),
        form=form,
        headers=headers_of(request),
        body_sha256=hashlib.sha256(body).hexdigest(),
    )
