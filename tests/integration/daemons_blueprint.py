"""A client that knows only the blueprint's own proto text and a certificate: run as a program.

    PYTHONPATH=DIRECTORY python daemons_blueprint.py    (DIRECTORY holds the compiled blueprint)

Makes the calls asked for on stdin, a JSON list of {"address", "credentials", "submit" or "report"},
and answers on stdout with what came of each: [code, details or answer].
"""

import json
import sys
from pathlib import Path

import blueprint_pb2 as pb
import blueprint_pb2_grpc as rpc
import grpc
from google.protobuf.json_format import ParseDict


def channel(asked):
    key, cert, ca = (
        (Path(asked["credentials"]) / f"{name}.pem").read_bytes() for name in ("key", "cert", "ca")
    )
    return grpc.secure_channel(asked["address"], grpc.ssl_channel_credentials(ca, key, cert))


def outcome(asked):
    with channel(asked) as to:
        try:
            if "submit" in asked:
                job = ParseDict(asked["submit"], pb.AIJob())
                status = rpc.FederationSchedulerStub(to).SubmitJob(job, timeout=20)
                return ["OK", f"{status.job_id} {status.status_message}"]
            metrics = [ParseDict(one, pb.NodeMetrics()) for one in asked["report"]]
            ack = rpc.NodeObserverStub(to).ReportMetrics(iter(metrics), timeout=20)
            return ["OK", ack.success]
        except grpc.RpcError as error:
            return [error.code().name, error.details()]


json.dump([outcome(asked) for asked in json.load(sys.stdin)], sys.stdout)
