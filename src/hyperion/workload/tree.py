"""The state of a training run as bytes and back: containers, numbers, tensors, arrays; no pickle.

A file is the magic, the length of a JSON header, the header, and the contents of all arrays one
after the other. The header is the tree with a small object in place of each thing that JSON has no
word for. Torch, NumPy and JAX are used only where the program has imported them.

What has ``state_dict`` and ``load_state_dict`` (modules, optimizers, schedulers, samplers, loaders)
is taken by these; what JAX knows as a pytree (Flax and Optax states) by its leaves.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

MAGIC = b"HYPXTREE"
MOST_HEADER_BYTES = 256 << 20
KEY = "@"
"""Marks an object of the header that stands for something else than a dict with string keys."""


class Unsaveable(TypeError):
    """A part of the state that cannot be written; names its place."""


# -- to bytes -----------------------------------------------------------------------------------


class Encoder:
    """Copies everything at once: the program may go on while the copy is written."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.size = 0

    def tree(self, x: Any, place: str = "state") -> Any:
        if x is None or type(x) in (bool, int, str):
            return x
        if isinstance(x, float):
            return {KEY: "f", "hex": x.hex()}
        if isinstance(x, dict):
            return self._dict(x, place)
        if isinstance(x, (list, tuple, set, frozenset)):
            kind = type(x).__name__ if type(x) in (tuple, set, frozenset) else "list"
            if isinstance(x, tuple):
                kind = "tuple"
            items = sorted(x) if kind in ("set", "frozenset") else x
            values = [self.tree(item, f"{place}[{n}]") for n, item in enumerate(items)]
            return values if kind == "list" else {KEY: kind, "items": values}
        if isinstance(x, (bytes, bytearray)):
            return {KEY: "bytes", "at": self._blob(bytes(x))}
        return self._array(x, place)

    def _dict(self, x: dict[Any, Any], place: str) -> Any:
        if all(type(key) is str and key != KEY for key in x):
            return {key: self.tree(value, f"{place}[{key!r}]") for key, value in x.items()}
        pairs = [
            [self.tree(key, f"a key of {place}"), self.tree(value, f"{place}[{key!r}]")]
            for key, value in x.items()
        ]
        return {KEY: "dict", "pairs": pairs}

    def _array(self, x: Any, place: str) -> Any:
        torch, numpy, jax = (sys.modules.get(name) for name in ("torch", "numpy", "jax"))
        if torch is not None and isinstance(x, torch.Tensor):
            return self._tensor(torch, x, place)
        if jax is not None and isinstance(x, jax.Array):
            return self._jax(jax, x, place)
        if numpy is not None and isinstance(x, (numpy.ndarray, numpy.generic)):
            return self._numpy(numpy, x, place)
        if torch is not None and isinstance(x, (torch.dtype, torch.device, torch.Size)):
            return self._torch_word(torch, x)
        if callable(getattr(x, "state_dict", None)):
            return {KEY: "object", "state": self.tree(x.state_dict(), place)}
        if jax is not None:
            leaves = jax.tree_util.tree_leaves(x)
            if not (len(leaves) == 1 and leaves[0] is x):
                return {KEY: "pytree", "leaves": self.tree(list(leaves), place)}
        raise Unsaveable(
            f"{place} is a {type(x).__module__}.{type(x).__qualname__}: give containers, numbers, "
            "tensors, arrays, and what has state_dict and load_state_dict"
        )

    def _torch_word(self, torch: Any, x: Any) -> Any:
        if isinstance(x, torch.Size):
            return {KEY: "tuple", "items": list(x)}
        kind = "torch.dtype" if isinstance(x, torch.dtype) else "torch.device"
        return {KEY: kind, "name": str(x).removeprefix("torch.")}

    def _tensor(self, torch: Any, x: Any, place: str) -> Any:
        if x.layout is not torch.strided or x.is_quantized:
            raise Unsaveable(f"{place} is a sparse or quantized tensor: give it as a dense one")
        if type(x).__name__ == "DTensor":
            raise Unsaveable(f"{place} is a DTensor: save it by torch.distributed.checkpoint")
        flat = x.detach().to("cpu").contiguous().reshape(-1)
        return {
            KEY: "torch",
            "dtype": str(x.dtype).removeprefix("torch."),
            "shape": list(x.shape),
            "at": self._blob(flat.view(torch.uint8).numpy().tobytes()),
        }

    def _jax(self, jax: Any, x: Any, place: str) -> Any:
        if not x.is_fully_addressable:
            raise Unsaveable(f"{place} is spread over several processes: save it by orbax")
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = self._numpy(sys.modules["numpy"], jax.device_get(jax.random.key_data(x)), place)
            return {KEY: "key", "impl": str(jax.random.key_impl(x)), "data": data}
        return self._numpy(sys.modules["numpy"], jax.device_get(x), place)

    def _numpy(self, numpy: Any, x: Any, place: str) -> Any:
        if x.dtype.hasobject:
            raise Unsaveable(f"{place} is an array of Python objects")
        return {
            KEY: "numpy",
            "dtype": x.dtype.name if x.dtype.kind == "V" else x.dtype.str,
            "shape": list(x.shape),
            "scalar": not isinstance(x, numpy.ndarray),
            "at": self._blob(numpy.ascontiguousarray(x).tobytes()),
        }

    def _blob(self, content: bytes) -> list[int]:
        place = [self.size, len(content)]
        self.blobs.append(content)
        self.size += len(content)
        return place


def write(file: BinaryIO, header: Any, encoder: Encoder) -> int:
    """The bytes written. OSError."""
    text = json.dumps(header, separators=(",", ":")).encode()
    file.write(MAGIC + len(text).to_bytes(8, "little") + text)
    for blob in encoder.blobs:
        file.write(blob)
    return len(MAGIC) + 8 + len(text) + encoder.size


# -- and back -----------------------------------------------------------------------------------


class Decoder:
    """Raises ValueError where the file is none of ours or is cut off; OSError."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            head = file.read(len(MAGIC) + 8)
            length = int.from_bytes(head[len(MAGIC) :], "little")
            if head[: len(MAGIC)] != MAGIC or length > MOST_HEADER_BYTES:
                raise ValueError(f"{path} is no checkpoint of this library")
            try:
                self.header = json.loads(file.read(length))
            except ValueError:
                raise ValueError(f"the checkpoint {path} is damaged: its header") from None
            start = file.tell()
            want = self.header["size"] if isinstance(self.header, dict) else 0
            if os.fstat(file.fileno()).st_size - start != want:
                raise ValueError(f"the checkpoint {path} is cut off or damaged")
            self._content = memoryview(bytearray(file.read()))
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "f": lambda x: float.fromhex(x["hex"]),
            "dict": lambda x: {self.tree(key): self.tree(value) for key, value in x["pairs"]},
            "tuple": lambda x: tuple(self._items(x)),
            "set": lambda x: set(self._items(x)),
            "frozenset": lambda x: frozenset(self._items(x)),
            "bytes": lambda x: bytes(self._blob(x["at"])),
            "object": lambda x: self.tree(x["state"]),
            "pytree": lambda x: self.tree(x["leaves"]),
            "numpy": self._numpy,
            "key": self._key,
            "torch": self._tensor,
            "torch.dtype": lambda x: getattr(importlib.import_module("torch"), x["name"]),
            "torch.device": lambda x: importlib.import_module("torch").device(x["name"]),
        }

    def tree(self, x: Any) -> Any:
        if isinstance(x, list):
            return [self.tree(item) for item in x]
        if not isinstance(x, dict):
            return x
        if KEY not in x:
            return {key: self.tree(value) for key, value in x.items()}
        read = self._kinds.get(x[KEY])
        if read is None:
            raise ValueError(f"the checkpoint holds a {x[KEY]!r}, which is not known here")
        return read(x)

    def _items(self, x: Any) -> list[Any]:
        return [self.tree(item) for item in x["items"]]

    def _numpy(self, x: Any) -> Any:
        numpy: Any = importlib.import_module("numpy")
        dtype = _numpy_type(numpy, x["dtype"])
        array = numpy.frombuffer(self._blob(x["at"]), dtype=dtype).reshape(x["shape"])
        return array[()] if x["scalar"] else array

    def _key(self, x: Any) -> Any:
        jax: Any = importlib.import_module("jax")
        return jax.random.wrap_key_data(self.tree(x["data"]), impl=x["impl"])

    def _tensor(self, x: Any) -> Any:
        torch: Any = importlib.import_module("torch")
        dtype = getattr(torch, x["dtype"])
        content = self._blob(x["at"])
        if not len(content):
            return torch.empty(x["shape"], dtype=dtype)
        raw = torch.frombuffer(content, dtype=torch.uint8)
        return raw.clone().view(dtype).reshape(x["shape"])

    def _blob(self, at: list[int]) -> memoryview:
        return self._content[at[0] : at[0] + at[1]]


def _numpy_type(numpy: Any, name: str) -> Any:
    try:
        return numpy.dtype(name)
    except TypeError:
        return numpy.dtype(getattr(importlib.import_module("ml_dtypes"), name))  # JAX brings it


def restore(like: Any, value: Any, place: str = "state") -> Any:
    """``value`` in the form of ``like``: what can be loaded in place is, and given back itself.

    Raises ValueError where the two do not fit, naming the place.
    """
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if callable(getattr(like, "load_state_dict", None)):
        like.load_state_dict(value)
        return like
    if isinstance(like, dict):
        _same(isinstance(value, dict) and like.keys() == value.keys(), place)
        return {key: restore(like[key], value[key], f"{place}[{key!r}]") for key in like}
    if isinstance(like, (list, tuple)):
        return _restore_items(like, value, place)
    if torch is not None and isinstance(like, torch.Tensor):
        _same(isinstance(value, torch.Tensor) and like.shape == value.shape, place)
        with torch.no_grad():
            like.copy_(value)
        return like
    if jax is not None and not isinstance(like, (bool, int, float, str, bytes, type(None))):
        return _restore_jax(jax, like, value, place)
    return value


def _restore_items(like: Any, value: Any, place: str) -> Any:
    _same(isinstance(value, (list, tuple)) and len(like) == len(value), place)
    items = [restore(like[n], value[n], f"{place}[{n}]") for n in range(len(like))]
    if isinstance(like, list):
        return items
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)


def _restore_jax(jax: Any, like: Any, value: Any, place: str) -> Any:
    if isinstance(like, jax.Array):
        if not isinstance(value, jax.Array):
            _same(getattr(value, "shape", ()) == like.shape, place)
        return jax.device_put(value, like.sharding)
    leaves, form = jax.tree_util.tree_flatten(like)
    if len(leaves) == 1 and leaves[0] is like:
        return value
    _same(isinstance(value, list) and len(value) == len(leaves), place)
    items = [restore(leaf, value[n], f"{place}, leaf {n}") for n, leaf in enumerate(leaves)]
    return form.unflatten(items)


def _same(fits: bool, place: str) -> None:
    if not fits:
        raise ValueError(f"{place} has another form than in the checkpoint")
