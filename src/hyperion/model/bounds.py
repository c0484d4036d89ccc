"""How much of everything a job may have, and what its names look like."""

MAX_REPLICAS = 10_000
MAX_ALTERNATIVES = 32
MAX_GPUS = 1024
"""Per replica; the largest single-image machines have far fewer."""
MAX_CPUS = 4096
MAX_MEMORY_MIB = 64 << 20
MAX_DISK_MIB = 1 << 30
MAX_NAME_CHARS = 63
MAX_ID_CHARS = 64
MAX_SCRIPT_BYTES = 256 << 10
MAX_SCRIPTS_BYTES = 1 << 20
"""Of all roles together."""
MAX_ARGUMENTS = 4096
MAX_ARGUMENT_BYTES = 96 << 10
"""Linux takes at most 128 KiB for one argument (MAX_ARG_STRLEN, execve(2))."""
MAX_VARIABLES = 1024
MAX_VARIABLE_BYTES = 128 << 10
"""All names and values of ``envs`` and ``secrets`` together."""
MAX_PATH_BYTES = 4095
MAX_ENTRIES = 64
"""In each of ``labels``, ``users_in`` and ``tolerations``."""
MAX_DATA_SOURCES = 256
MAX_DATA_GIB = 1e9
MAX_DATASETS_NAMED = 64
"""In each of ``reads`` and ``writes``."""
MAX_FRACTION = 10_000.0
"""Of a dataset, all passes of a job together."""
MAX_COPIES = 64
"""Regions in which one dataset lies."""
MAX_URI_BYTES = 2048
MAX_METADATA_ENTRIES = 256
MAX_METADATA_BYTES = 64 << 10
MAX_WEIGHT = 1000.0
MAX_USD = 1e9
MAX_KG = 1e9
MAX_CARBON_PRICE = 1e6
"""USD per tonne of CO2 equivalent."""
MAX_LATENCY_S = 60.0
"""Of a round trip that a job can name as its target."""
MAX_SECONDS = 10 * 366 * 86400.0
MAX_RESTARTS = 1000
MAX_BACKOFF_S = 86400.0
MAX_GRACE_S = 3600.0
MAX_HOLD_S = 3600.0
MAX_WITHIN_S = 60.0
MAX_GPU_QUEUE_S = 1.0

MAX_NICE = 1000
MAX_ROLES = 64
MAX_ARRAY_TASKS = 1_000_000
MAX_ARRAY_INDEX = (1 << 31) - 1
MAX_DEPENDENCIES = 64
MAX_TERMS = 64
"""In each of ``resources.node_affinity``, ``near`` and ``away_from`` together."""
MAX_TERM_VALUES = 64
MAX_TERM_WEIGHT = 100
MAX_TERM_NUMBER = 1 << 53
"""Labels are compared as whole numbers up to here, either side of 0."""
MAX_SKEW = 10_000
MAX_CUSTOM_AMOUNT = 1_000_000_000

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
VARIABLE_PATTERN = r"[A-Za-z_][A-Za-z0-9_]{0,254}"
ACCELERATOR_PATTERN = r"[A-Za-z][A-Za-z0-9._-]{0,62}"
KEY_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,252}"
REGION_PATTERN = r"[a-z][a-z0-9-]{0,31}/[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
INFRA_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(/[A-Za-z0-9][A-Za-z0-9._-]{0,62})?"
PLACE_PATTERN = r"[A-Za-z0-9*][A-Za-z0-9._*-]{0,62}(/[A-Za-z0-9*][A-Za-z0-9._*-]{0,62})?"
"""A cloud, cloud/region or cluster, with ``*`` for any characters."""
BUNDLE_PATTERN = r"bundle:sha256:[0-9a-f]{64}"
