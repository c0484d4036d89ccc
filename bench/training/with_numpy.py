"""A perceptron with dropout, trained by Adam, all of it written out in NumPy."""

import pickle

import numpy as np

SHAPES = [(64, 128), (128,), (128, 128), (128,), (128, 8), (8,)]
BATCH, ROWS = 64, 512


def gradients(p, x, y, keep):
    """(loss, its derivative by each of the parameters)."""
    a = np.tanh(x @ p[0] + p[1]) * keep
    b = np.tanh(a @ p[2] + p[3])
    e = b @ p[4] + p[5] - y
    d = 2 * e / e.size
    db = d @ p[4].T * (1 - b * b)
    da = db @ p[2].T * keep * (1 - a * a)
    return (e * e).mean(), [x.T @ da, da.sum(0), a.T @ db, db.sum(0), b.T @ d, d.sum(0)]


def adam(step, p, m, v, g):
    for k in range(len(p)):
        m[k] = 0.9 * m[k] + 0.1 * g[k]
        v[k] = 0.999 * v[k] + 0.001 * g[k] ** 2
        p[k] -= 1e-3 * (m[k] / (1 - 0.9**step)) / (np.sqrt(v[k] / (1 - 0.999**step)) + 1e-8)


def train(run):
    dice = np.random.default_rng(7)
    x, y = dice.normal(size=(ROWS, 64)), dice.normal(size=(ROWS, 8))
    p = [dice.normal(size=s) * 0.1 for s in SHAPES]
    m, v = [np.zeros(s) for s in SHAPES], [np.zeros(s) for s in SHAPES]
    step, order = 0, np.arange(ROWS)
    if (found := run.checkpoint()) is not None:
        step, p, m, v, order, dice.bit_generator.state = pickle.loads(found)
    while step < run.steps:
        run.loads()
        at = step * BATCH % ROWS
        if at == 0:
            order = dice.permutation(ROWS)
        rows = order[at : at + BATCH]
        seen, wanted = x[rows] + 0.01 * dice.normal(size=(BATCH, 64)), y[rows]
        run.computes()
        loss, g = gradients(p, seen, wanted, dice.random((BATCH, 128)) > 0.1)
        run.updates()
        step += 1
        adam(step, p, m, v, g)
        state = (step, p, m, v, order, dice.bit_generator.state)
        run.commit(step, loss, lambda state=state: pickle.dumps(state))
    run.ends(q.tobytes() for q in p)
