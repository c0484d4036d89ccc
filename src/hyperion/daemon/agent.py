"""hyperiond: the agent of one node. Wires the machine to its runtime, store and scheduler."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from hyperion import __version__
from hyperion.adapters.checkpoint.pauser import FastPathPauser
from hyperion.adapters.link.credentials import Credentials
from hyperion.adapters.link.streams import AGENTS
from hyperion.adapters.link.uplink import Uplink
from hyperion.adapters.runtime.process import ProcessRuntime
from hyperion.adapters.runtime.retention import Bounds
from hyperion.adapters.telemetry.host import HostTelemetry
from hyperion.control import messages as m
from hyperion.control.agent import Agent, AgentTimes
from hyperion.daemon import notices
from hyperion.daemon import questions as q
from hyperion.daemon.application import NotFound, Unavailable
from hyperion.daemon.bundles import Bundles
from hyperion.daemon.clock import WallClock
from hyperion.daemon.driver import Driver
from hyperion.daemon.node import describe
from hyperion.daemon.observe import start_logging
from hyperion.daemon.readiness import say_ready
from hyperion.daemon.running import Tasks, run, together
from hyperion.daemon.settings import DAY_MS, AgentSettings
from hyperion.daemon.standby import Standbys
from hyperion.daemon.standing import Standing, freeze
from hyperion.daemon.starting import TRANSLATION, load_credentials, open_store, pace
from hyperion.daemon.urgency import keep_hurrying
from hyperion.daemon.workloads import Workloads, notice_text
from hyperion.model.ids import AllocationId
from hyperion.model.notice import notice_url
from hyperion.ports import Reading, Surroundings
from hyperion.wire.environment import surroundings
from hyperion.wire.relay import Measured

_log = logging.getLogger("hyperion.agent")


def main(settings: AgentSettings) -> int:
    """Run the agent until SIGTERM; replicas run on after it."""
    start_logging(settings.log_level, settings.log_format, daemon="agent")
    return run(lambda stop: AgentDaemon(settings).serve(stop))


class AgentDaemon:
    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.clock = WallClock()
        self.directory = Path(settings.state_dir)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # its free disk is measured
        self.credentials: Credentials = load_credentials(Path(settings.credentials), "agent")
        self.telemetry = HostTelemetry(self.directory)
        self.node = describe(settings, self.telemetry.capacity(), __version__)
        self.bundles = Bundles(self.directory / "bundles", self._fetch)
        self.runtime = ProcessRuntime(
            self.directory / "runtime",
            self._surround,
            self.node.address,
            node=self.node.id,
            fetch=self.bundles.get,
            log_limit_bytes=settings.log_limit_mib << 20,
            log_files=settings.log_files,
            keep=Bounds(days=settings.replica_retention_ms / DAY_MS),
            use_cgroups=settings.cgroups,
        )
        self.reading: Reading | None = None
        self.tasks = Tasks()
        pauser = FastPathPauser(self.directory / "fastpath")
        self.workloads = Workloads(self.directory / "pages", self._heard)
        self.standing = Standing(pauser, self.runtime, self.workloads, self._heard, self.tasks)
        self.standbys = Standbys(pauser, self.runtime, self._heard, self.standing.watch, self.tasks)

    async def serve(self, stop: asyncio.Event) -> None:
        settings = self.settings
        store = open_store(self.directory / "agent.db", settings)
        await self.runtime.start(self._heard)
        await self.standing.start(self.standbys.woken)
        abilities = {**self.runtime.abilities(), **self.standing.abilities()}
        node = msgspec.structs.replace(self.node, abilities=abilities)
        self.machine = Agent(
            node,
            AgentTimes(
                heartbeat_ms=settings.heartbeat_ms,
                resend_ms=settings.resend_ms,
                refresh_ms=settings.refresh_ms,
            ),
        )
        remaining_ms = self.runtime.recover_lease()
        if remaining_ms is not None:
            lease = m.LeaseRecovered(remaining_ms=remaining_ms)
            self.machine.handle(lease, self.clock.now_ms())
        self.driver = Driver(self.machine, store, self.clock, self._perform, pace(settings))
        self.uplink = Uplink(
            AGENTS,
            settings.scheduler,
            lambda: self.credentials,
            on_attached=self._attached,
            on_message=self.driver.note,
            on_detached=self._detached,
            translation=TRANSLATION,
        )
        self.uplink.serve(q.LOGS, self._logs)
        self.uplink.serve(q.ACTIVATE, self._activate)
        self.driver.recover()
        unknown = await self.runtime.sweep(list(self.machine.replicas))
        if unknown:
            _log.warning("killed %d replicas that no order accounts for", len(unknown))
        self.workloads.sweep(self.machine.replicas)
        self._say(attached=self.uplink.attached)
        try:
            self.tasks.begin(keep_hurrying(), "taking precedence")
            await together(
                stop, self.driver.run(), self.uplink.run(), self._measure(), self.workloads.watch()
            )
        finally:
            if settings.stop_replicas:
                await self._stop_replicas()
            await self.tasks.end()
            await self.standing.close()
            await self.runtime.close()
            self.telemetry.close()
            store.close()

    def _attached(self) -> None:
        self.driver.note(m.SchedulerAttached())
        self._say(attached=True)

    def _detached(self) -> None:
        self.driver.note(m.SchedulerDetached())
        self._say(attached=False)

    def _say(self, *, attached: bool) -> None:
        say_ready(self.directory, attached=attached)

    def _heard(self, event: Any) -> None:
        match event:
            case m.ReplicaStarted(allocation):
                self.workloads.begun(allocation)
                self.standing.begun(allocation)
                self.standbys.begun(allocation)
            case m.ReplicaExited(allocation):
                self.workloads.ended(allocation)
                self.standing.ended(allocation)
                self.standbys.ended(allocation)
        self.driver.note(event)

    def _perform(self, command: m.AgentCommand) -> None:
        match command:
            case m.SendToScheduler(message):
                self.uplink.send(message)
                if type(message) is m.NodeHeartbeat and self.reading is not None:
                    self._send_reading(self.reading)
            case m.LaunchReplica(order):
                self.standbys.ordered(order)
                self.tasks.begin(self.runtime.launch(order), f"launching {order.allocation}")
            case m.PrepareReplica(order):
                self.tasks.begin(self.runtime.prepare(order), f"preparing {order.allocation}")
            case m.KillReplica(allocation, grace_ms):
                self.tasks.begin(self._kill(allocation, grace_ms), f"stopping {allocation}")
            case m.PauseReplica(allocation):
                self.tasks.begin(self.standing.pause(command), f"pausing {allocation}")
            case m.ResumeReplica(allocation):
                self.tasks.begin(self.standing.resume(allocation), f"resuming {allocation}")
            case m.InspectReplica(allocation):
                self.tasks.begin(self.standing.inspect(allocation), f"looking at {allocation}")
            case m.GuardReplica(order):
                self.tasks.begin(self.standbys.guard(order), f"guarding {order.allocation}")
            case m.DropReplica(allocation):
                self.tasks.begin(self.runtime.drop(allocation), f"dropping {allocation}")
            case m.KeepLease(remaining_ms):
                self.runtime.keep_lease(remaining_ms)

    async def _kill(self, allocation: AllocationId, grace_ms: int) -> None:
        self.workloads.notice(allocation, grace_ms)
        await self.standing.let_go(allocation)
        replica = self.machine.replicas.get(allocation)
        order = replica.order if replica is not None else None
        url = notice_url(order.job.checkpoint.notice) if order is not None else None
        if url is not None and grace_ms > 0:
            body = notice_text(grace_ms).encode()
            self.tasks.begin(notices.tell(allocation, url, body), f"telling {allocation}")
        await self.runtime.kill(allocation, grace_ms)

    def _surround(self, order: m.Run, directory: str, port: int) -> Surroundings:
        settings = self.settings
        around = surroundings(
            order,
            directory,
            port,
            cluster=settings.cluster,
            region=settings.region,
            node=self.node.id,
            address=self.node.address,
            real_gpus=bool(self.node.capacity.gpus) and "accelerators" not in self.node.declared,
            interface=settings.interface,
        )
        own = self.workloads.surround(order.allocation, order.job)
        return msgspec.structs.replace(around, variables={**around.variables, **own})

    async def _stop_replicas(self) -> None:
        """The machine is not told: to the cluster they are lost, and so run again elsewhere."""
        grace_ms = self.settings.stop_grace_ms
        live = [id for id, x in self.machine.replicas.items() if not x.state.is_terminal]
        kills = (self._kill(id, grace_ms) for id in live)
        with suppress(TimeoutError):  # the rest of the end must come all the same
            async with asyncio.timeout(2 * grace_ms / 1000 + 5):
                await asyncio.gather(*kills, return_exceptions=True)

    async def _logs(self, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=q.ReadLogs)
        pieces = self.runtime.logs(AllocationId(asked.allocation), asked.follow, asked.tail_lines)
        async for piece in pieces:
            yield piece

    async def _activate(self, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=q.Activate)
        id = AllocationId(asked.allocation)
        try:
            if asked.release:
                await self.standbys.release(id)
                yield msgspec.json.encode(q.Activated())
                return
            woken = await self.standbys.activate(id)
        except LookupError as error:
            raise NotFound(str(error)) from None
        except OSError as error:
            raise Unavailable(str(error)) from None
        took = freeze(woken.paused, woken.asked_ns)
        yield msgspec.json.encode(q.Activated(woken.frozen, took))

    async def _fetch(self, digest: str) -> AsyncIterator[bytes]:
        async for piece in self.uplink.call(q.BUNDLE, msgspec.json.encode(q.GetBundle(digest))):
            yield piece

    async def _measure(self) -> None:
        """Once a second, what this machine is doing."""
        while True:
            await asyncio.sleep(self.settings.telemetry_ms / 1000)
            if self.uplink.attached:
                reading = self.telemetry.read(self.clock.now_ms())
                if self.settings.heartbeat_ms <= self.settings.telemetry_ms:
                    self.reading = reading  # goes with the next heartbeat, in one envelope
                else:
                    self._send_reading(reading)

    def _send_reading(self, reading: Reading) -> None:
        self.reading = None
        self.uplink.send(Measured(self.node.id, reading))
