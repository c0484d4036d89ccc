"""``make demo``: three clusters on this machine, a training run to a stated accuracy, and why.

Everything it does is a command that you can type; each is echoed before it runs. Nothing is left
behind, however it ends.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

EXAMPLES = Path(__file__).resolve().parent
HYPERION = str(Path(sys.executable).with_name("hyperion"))
STEP_S = 120
"""No single command of the demo takes this long."""


class Demo:
    def __init__(self, home: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HYPERION_")}
        python = {"HYPERION_PYTHON": sys.executable}
        self.environment = {**kept, "HYPERION_HOME": str(home), **python}
        self.bold, self.plain = ("\033[1m", "\033[0m") if _coloured() else ("", "")

    def run(self) -> None:
        say = self.say
        say("Three clusters on this machine, each a real scheduler with a real agent. Their GPUs")
        say("are declared, not real; prices, egress, latency and carbon are the catalogue's.")
        self.do("up", "--world", "three-regions", "--detach")
        self.do("clusters")
        say("Where would the training go, at what price, and why not elsewhere? The data (200 GiB)")
        say("lies in gcp/europe-west1, so elsewhere it would have to be moved.")
        self.do("plan", "train.yaml")
        say("Run it: two replicas that start together, output as it comes, 95 % or it has failed.")
        self.do("run", "train.yaml")
        say("The same kind of arithmetic sends other jobs to other places.")
        self.do("run", "batch.yaml")
        self.do("run", "serve.yaml")
        self.do("run", "gang.yaml")
        self.do("ps", "-a")
        say("Why did the training go where it went? The terms add up to the score.")
        self.do("why", "train")

    def say(self, text: str) -> None:
        print(f"{self.bold}{text}{self.plain}", flush=True)

    def do(self, *arguments: str) -> None:
        print(f"\n{self.bold}$ hyperion {' '.join(arguments)}{self.plain}", flush=True)
        done = subprocess.run(
            [HYPERION, *arguments],
            cwd=EXAMPLES,
            env=self.environment,
            timeout=STEP_S,
            check=False,
        )
        print(flush=True)
        if done.returncode:
            raise SystemExit(f"demo: `hyperion {' '.join(arguments)}` ended with {done.returncode}")

    def down(self) -> None:
        subprocess.run(
            [HYPERION, "down"],
            env=self.environment,
            timeout=STEP_S,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def main() -> int:
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    home = Path(tempfile.mkdtemp(prefix="hyperion-demo-"))
    demo = Demo(home)
    try:
        demo.run()
    except KeyboardInterrupt:
        print("\ninterrupted; cleaning up …", file=sys.stderr)
        return 130
    finally:
        demo.down()
        shutil.rmtree(home, ignore_errors=True)
    demo.say(f"Done in {time.monotonic() - began:.0f} s; everything is stopped and removed.")
    demo.say("Next: .venv/bin/hyperion up, and docs/guide.md.")
    return 0


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


if __name__ == "__main__":
    sys.exit(main())
