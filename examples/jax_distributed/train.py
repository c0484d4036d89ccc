"""Sums over all processes with JAX; ``initialize()`` finds its gang by itself."""

import sys

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def main() -> int:
    jax.distributed.initialize()
    rank, size = jax.process_index(), jax.process_count()
    mesh, split = Mesh(jax.devices(), ("all",)), PartitionSpec("all")
    count = len(jax.local_devices())
    mine = jnp.full((count,), float(rank + 1))
    whole = jax.make_array_from_process_local_data(NamedSharding(mesh, split), mine)
    summing = jax.shard_map(
        lambda part: jax.lax.psum(part, "all"), mesh=mesh, in_specs=split, out_specs=split
    )
    found = float(jax.jit(summing)(whole).addressable_data(0)[0])
    wanted = float(sum(range(1, size + 1)) * count)
    print(f"process {rank}/{size} psum {found} wanted {wanted}", flush=True)
    jax.distributed.shutdown()
    return 0 if found == wanted else 1


if __name__ == "__main__":
    sys.exit(main())
