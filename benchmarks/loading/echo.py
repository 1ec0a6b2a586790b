"""A bare aiohttp server, which parses JSON and answers at once: the least that a message can cost.

python echo.py PORT
"""

from __future__ import annotations

import sys

import orjson
import uvloop
from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    """Parse, answer."""
    message = orjson.loads(await request.read())
    return web.Response(body=orjson.dumps({"reply": message["text"]}), content_type="application/json")


async def ready(_request: web.Request) -> web.Response:
    """It is up."""
    return web.Response()


def run(port: int) -> None:
    """Serve until the process is told to stop."""
    app = web.Application()
    app.router.add_post("/v1/messages", echo)
    app.router.add_get("/readyz", ready)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    run(int(sys.argv[1]))
