"""The replay server on a free port of loopback, for tests: real HTTP, made-up or ordered values."""

import socket
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from hyperion.daemon.market_replay.series import Series
from hyperion.daemon.market_replay.server import ReplayServer, base_url


class Replay:
    """A running server: its application, its address, and orders to it over HTTP."""

    def __init__(self, app, address):
        self.app, self.address = app, address

    def url(self, api):
        return base_url(api, self.address)

    def fault(self, api, kind, **more):
        self._post("faults", {"api": api, "kind": kind, **more})

    def value(self, kind, place, value, subject=""):
        self._post("values", {"kind": kind, "place": place, "value": value, "subject": subject})

    def clock(self, **order):
        self._post("clock", order)

    def heal(self):
        httpx.delete(f"http://{self.address}/replay/faults").raise_for_status()
        httpx.delete(f"http://{self.address}/replay/values").raise_for_status()

    def _post(self, what, order):
        answer = httpx.post(f"http://{self.address}/replay/{what}", json=order)
        assert answer.status_code == 200, answer.text


@contextmanager
def replaying():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = ReplayServer(Series())
        config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        ends = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < ends
            time.sleep(0.01)
        try:
            yield Replay(app, "{}:{}".format(*listening.getsockname()))
        finally:
            server.should_exit = True
            thread.join(10)
