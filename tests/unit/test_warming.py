"""Compiled loops are loaded once, beside the daemon, and only where they are worth their memory."""

import logging
import queue

from hyperion.daemon.warming import WORTH_IT_NODES, Warming


def test_they_are_loaded_once_when_there_are_nodes_enough():
    loaded = queue.Queue()
    warming = Warming(lambda: loaded.put("loaded"))
    warming.look(WORTH_IT_NODES - 1)
    warming.look(WORTH_IT_NODES)
    warming.look(WORTH_IT_NODES + 1)
    assert loaded.get(timeout=10) == "loaded"
    assert loaded.empty()


def test_a_fault_in_them_is_told_and_harms_nobody(caplog):
    tried = queue.Queue()

    def broken():
        tried.put("tried")
        raise OSError("no room for the cache")

    caplog.set_level(logging.ERROR)
    warming = Warming(broken)
    warming._warm()
    assert tried.get_nowait() == "tried"
    assert "no room for the cache" in caplog.text
