"""The hook that brings copies: what it finds, how often it is tried, and that it ends."""

import asyncio
import sys

from hyperion.control.messages import HaulCopy
from hyperion.daemon.dataset_hook import ATTEMPTS, DatasetHook

WISH = HaulCopy("imagenet", "copy", "aws/us-east-1", "gcp/us-west1", 150.0)


def done(script, *wishes, timeout_s=60.0, program=sys.executable):
    """What the hook reports of each wish, when all are done."""
    told = []

    async def play():
        over = asyncio.Event()

        def report(said):
            told.append(said)
            if len(told) == len(wishes):
                over.set()

        hook = DatasetHook([program, "-c", script], timeout_s, report, pause_s=0.0)
        for wish in wishes:
            hook.ask(wish)
            hook.ask(wish)  # again, while it is being done
        await over.wait()
        await hook.close()

    asyncio.run(play())
    return told


def test_it_finds_what_to_do_in_its_environment(tmp_path):
    script = (
        "import os; open(os.environ['OUT'], 'a').write(' '.join(os.environ['HYPERION_' + name]"
        " for name in ('HOOK', 'DATASET', 'SOURCE', 'TARGET', 'SIZE_GIB')) + chr(10))"
    )
    out = tmp_path / "out"
    (said,) = done(f"import os; os.environ['OUT'] = {str(out)!r}; {script}", WISH)
    assert (said.dataset, said.region, said.wanted, said.error) == (
        "imagenet", "gcp/us-west1", "copy", "",
    )  # fmt: skip
    assert out.read_text() == "copy imagenet aws/us-east-1 gcp/us-west1 150.000\n"


def test_it_is_tried_a_few_times_and_then_its_last_words_are_told(tmp_path):
    out = tmp_path / "out"
    script = f"open({str(out)!r}, 'a').write('x'); import sys; sys.exit('no space\\nleft')"
    (said,) = done(script, WISH)
    assert said.error == "ended with 1: no space left"
    assert out.read_text() == "x" * ATTEMPTS


def test_one_that_takes_too_long_is_ended():
    (said,) = done("import time; time.sleep(600)", WISH, timeout_s=0.1)
    assert said.error == "took longer than 0.1 s"


def test_one_that_is_not_there_is_told():
    (said,) = done("", WISH, program="/nowhere/hook")
    assert said.error == "cannot run /nowhere/hook: No such file or directory"
