"""A small HTTP service on the port that Hyperion found free; ends well on SIGTERM.

GET / answers where it runs, GET /healthz answers ``ok``.
"""

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("MASTER_PORT", "0"))
SECONDS = float(os.environ.get("SECONDS_TO_LIVE", "600"))


class Answers(BaseHTTPRequestHandler):
    """One request."""

    timeout = 10

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(200, b"ok\n", "text/plain")
        elif self.path == "/":
            place = {"region": os.environ.get("HYPERION_REGION", ""), "pid": os.getpid()}
            self._answer(200, json.dumps(place).encode() + b"\n", "application/json")
        else:
            self._answer(404, b"there is / and /healthz\n", "text/plain")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        print(format % args, flush=True)


def main() -> int:
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Answers)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"serving on http://127.0.0.1:{server.server_port}/", flush=True)
    asked = over.wait(SECONDS)
    server.shutdown()
    print("asked to end" if asked else "served long enough", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
