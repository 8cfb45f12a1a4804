"""Carries out faults of the connection and of the HTTP answer."""

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from deployments.local_ollama import responses, wire
from deployments.local_ollama.engine import Engine
from deployments.local_ollama.faults import FaultError, Rule
from deployments.local_ollama.scheduler import Scheduler
from deployments.local_ollama.timing_engine import TimingEngine

LOADING_SECONDS = 5.0
_PAGE = (
    "<!DOCTYPE html><html><head><title>{title}</title></head>"
    "<body><h1>{title}</h1><p>This page is a simulated fault.</p></body></html>\n"
)


class Server(Protocol):
    """The parts of a server that a fault can strike as a whole."""

    @property
    def engine(self) -> Engine:
        """What makes its answers."""
        ...

    def refuse(self, seconds: float | None) -> None:
        """Close every connection and take no new one for `seconds`, or for ever with None."""
        ...


def break_off(transport: asyncio.BaseTransport | None) -> None:
    """End a connection with a TCP reset, dropping what was not sent yet."""
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()
    else:
        transport.close()


class Misbehaviour:
    """Does to a request what a fault rule says."""

    def __init__(self, server: Server, scheduler: Scheduler, leave: Callable[[int], None]) -> None:
        self._server = server
        self._scheduler = scheduler
        self._leave = leave

    async def instead(self, request: web.Request, fault: Rule) -> web.StreamResponse | None:
        """What the client gets in place of an answer, or None where it gets an answer after all.

        Faults that end the connection never return: the handler is cancelled with its connection.
        """
        if fault.delay:
            await asyncio.sleep(fault.delay)
        match fault.kind:
            case "status":
                return _status(fault)
            case "html":
                return responses.raw(_page(fault, "Welcome"), 200, "text/html; charset=utf-8")
            case "loading" | "refuse" | "die":
                self.happen(fault)
        if fault.kind == "hang":
            await self._hang(fault.seconds)
        if fault.kind in ("hang", "reset", "refuse", "die"):
            break_off(request.transport)
            await self._hang(None)
        return None

    def require(self, fault: Rule) -> None:
        """Raise FaultError for a fault that is to happen now and cannot, with this engine."""
        if fault.now and fault.kind in ("slow", "hang"):
            self._timing_engine(fault)

    def happen(self, fault: Rule) -> None:
        """The part of a fault that concerns the whole server; raises as `require` does.

        Of `slow` and `hang` it is the part that only rules with `now` have.
        """
        match fault.kind:
            case "slow":
                self._timing_engine(fault).clocks.slow_down(fault.factor)
            case "hang":
                self._timing_engine(fault).clocks.slow_down(math.inf)
            case "refuse":
                self._server.refuse(fault.seconds)
            case "die":
                self._leave(fault.exit_code)
            case "loading":
                seconds = LOADING_SECONDS if fault.seconds is None else fault.seconds
                self._scheduler.reload_slowly(seconds)

    async def deliver(
        self, request: web.Request, fault: Rule, answer: web.Response
    ) -> web.StreamResponse:
        """Send a finished answer the way a fault of one of BODY_KINDS has it."""
        body = answer.body
        if not isinstance(body, bytes):
            return answer
        content_type = answer.headers["Content-Type"]
        half = body[: len(body) // 2]
        if fault.kind == "truncated_json":
            return responses.raw(half, answer.status, content_type)
        sent = web.StreamResponse(status=answer.status, headers=responses.headers(content_type))
        sent.content_length = len(body)
        await sent.prepare(request)
        if fault.kind == "reset_mid_body":
            await sent.write(half)
            # A reset drops what the kernel still holds, so let the first half leave first.
            await asyncio.sleep(0.05)
            break_off(request.transport)
            await self._hang(None)
        try:
            for at in range(0, len(body), fault.piece):
                await sent.write(body[at : at + fault.piece])
                await asyncio.sleep(fault.pause)
            await sent.write_eof()
        except ConnectionError:
            await self._hang(None)  # The client left, and its handler is about to be cancelled.
        return sent

    def _timing_engine(self, fault: Rule) -> TimingEngine:
        engine = self._server.engine
        if isinstance(engine, TimingEngine):
            return engine
        raise FaultError(
            f"fault {fault.kind}: with now it needs the simulated engine, whose time is its own"
        )

    async def _hang(self, seconds: float | None) -> None:
        """Wait for the time given, or until the client leaves or the server stops."""
        if seconds is None:
            await asyncio.get_running_loop().create_future()
        else:
            await asyncio.sleep(seconds)


def _status(fault: Rule) -> web.Response:
    if isinstance(fault.body, str):
        kind = "text/html; charset=utf-8" if fault.body.lstrip().startswith("<") else wire.TEXT
        answer = responses.text(fault.body, fault.status, content_type=kind)
    else:
        message = f"simulated fault: status {fault.status}"
        answer = responses.respond(
            wire.error(message) if fault.body is None else fault.body, fault.status
        )
    answer.headers.update(fault.headers)
    return answer


def _page(fault: Rule, title: str) -> bytes:
    return (fault.body if isinstance(fault.body, str) else _PAGE.format(title=title)).encode()
