"""A small service that is there before it is asked: it answers with what it makes of a picture.

Its socket was opened before it started, and comes as descriptor 3, as systemd hands over sockets.
"""

import os
import socket

import numpy as np

weights = np.random.default_rng(0).normal(size=(784, 10))
if os.environ.get("LISTEN_PID") != str(os.getpid()):
    raise SystemExit("started without its socket: it is a standby, see answer.yaml")
listener = socket.socket(fileno=3)
print("waiting to be asked", flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(5.0)
        try:
            picture = np.frombuffer(connection.recv(784), np.uint8)
            scores = np.resize(picture, 784) @ weights if len(picture) else weights.sum(0)
            connection.sendall(f"it is a {int(scores.argmax())}\n".encode())
        except OSError:
            continue  # whoever asked has gone
