"""The codec's front: everything that daemons and clients need to speak the contract."""

from hyperion.wire.codec_fields import WireError
from hyperion.wire.codec_job import MAX_JOB_BYTES, job_from_proto, job_to_proto
from hyperion.wire.codec_link import (
    MAX_ENVELOPE_BYTES,
    Relayed,
    Unread,
    decode,
    decode_late,
    encode,
    metrics_from_proto,
    metrics_to_proto,
    pack_agent,
    pack_cluster,
    pack_federation,
    pack_scheduler,
    split,
    unpack_agent,
    unpack_cluster,
    unpack_federation,
    unpack_scheduler,
)
from hyperion.wire.codec_views import view_from_proto, view_to_proto

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "MAX_JOB_BYTES",
    "Relayed",
    "Unread",
    "WireError",
    "decode",
    "decode_late",
    "encode",
    "job_from_proto",
    "job_to_proto",
    "metrics_from_proto",
    "metrics_to_proto",
    "pack_agent",
    "pack_cluster",
    "pack_federation",
    "pack_scheduler",
    "split",
    "unpack_agent",
    "unpack_cluster",
    "unpack_federation",
    "unpack_scheduler",
    "view_from_proto",
    "view_to_proto",
]
