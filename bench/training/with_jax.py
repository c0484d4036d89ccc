"""A perceptron with dropout, trained by Adam in two compiled halves; each key is explicit."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np

SIZES = (64, 256, 256, 8)
BATCH, ROWS = 128, 1024


def loss_of(layers, x, y, key):
    *inner, (last, bias) = layers
    for number, (weights, inner_bias) in enumerate(inner):
        x = jnp.tanh(x @ weights + inner_bias)
        x = x * jax.random.bernoulli(jax.random.fold_in(key, number), 0.9, x.shape)
    return jnp.mean((x @ last + bias - y) ** 2)


compute = jax.jit(jax.value_and_grad(loss_of))


@jax.jit
def update(step, p, m, v, g):
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, g)
    first, second = 1 - 0.9**step, 1 - 0.999**step
    p = jax.tree.map(
        lambda p, m, v: p - 1e-3 * (m / first) / (jnp.sqrt(v / second) + 1e-8), p, m, v
    )
    return p, m, v


@jax.jit
def noisy(x, key):
    return x + 0.01 * jax.random.normal(key, x.shape)


def start():
    """(data, parameters, the key of all that is drawn in training)."""
    one, two, key, *layers = jax.random.split(jax.random.key(7), 3 + len(SIZES) - 1)
    x = np.asarray(jax.random.normal(one, (ROWS, SIZES[0])))
    y = np.asarray(jax.random.normal(two, (ROWS, SIZES[-1])))
    shapes = zip(layers, SIZES, SIZES[1:], strict=False)
    p = [(0.1 * jax.random.normal(k, (a, b)), jnp.zeros(b)) for k, a, b in shapes]
    return x, y, p, key


def train(run):
    x, y, p, key = start()
    m = v = jax.tree.map(jnp.zeros_like, p)
    step, order = 0, np.arange(ROWS)
    if (found := run.checkpoint()) is not None:
        step, order, data, held = pickle.loads(found)
        key = jax.random.wrap_key_data(data)
        p, m, v = jax.tree.map(jnp.asarray, held)

    def state():
        held = jax.tree.map(np.asarray, (p, m, v))
        return pickle.dumps((step, order, np.asarray(jax.random.key_data(key)), held))

    while step < run.steps:
        run.loads()
        key, shuffle, noise, dropout = jax.random.split(key, 4)
        at = step * BATCH % ROWS
        if at == 0:
            order = np.asarray(jax.random.permutation(shuffle, ROWS))
        rows = order[at : at + BATCH]
        batch = jax.block_until_ready((noisy(x[rows], noise), jnp.asarray(y[rows])))
        run.computes()
        loss, g = jax.block_until_ready(compute(p, *batch, dropout))
        run.updates()
        step += 1
        p, m, v = jax.block_until_ready(update(float(step), p, m, v, g))
        run.commit(step, float(loss), state)
    run.ends(np.asarray(q).tobytes() for q in jax.tree.leaves(p))
