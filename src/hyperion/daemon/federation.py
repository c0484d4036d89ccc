"""h-federation: the global API. Serves users (REST and gRPC) and the schedulers that attach."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from hyperion.adapters.link import services
from hyperion.adapters.link.downlinks import Downlinks
from hyperion.adapters.link.gate import Gate
from hyperion.adapters.link.server import LinkServer
from hyperion.adapters.link.streams import CLUSTERS
from hyperion.adapters.market.static import OverlayError, StaticMarket
from hyperion.control import messages as m
from hyperion.control.federation import Federation
from hyperion.control.federation_times import FederationTimes
from hyperion.daemon import plugins
from hyperion.daemon import questions as q
from hyperion.daemon.bundles import Bundles
from hyperion.daemon.clock import WallClock
from hyperion.daemon.dataset_hook import DatasetHook
from hyperion.daemon.driver import Driver
from hyperion.daemon.enrolment import authority, enrol
from hyperion.daemon.federation_application import FederationApplication
from hyperion.daemon.gateway import SOCKET_NAME, Gateway, GatewayError, GatewaySettings
from hyperion.daemon.market_settings import market_watch
from hyperion.daemon.observe import start_logging
from hyperion.daemon.readiness import say_ready
from hyperion.daemon.running import CannotStart, run, together
from hyperion.daemon.settings import FederationSettings
from hyperion.daemon.starting import TRANSLATION, listen, load_credentials, open_store, pace
from hyperion.daemon.urgency import keep_hurrying
from hyperion.model.ids import ClusterId
from hyperion.model.market import MarketView
from hyperion.placement.ranking import Rankers

_log = logging.getLogger("hyperion.federation")


def main(settings: FederationSettings) -> int:
    """Run the federation until SIGTERM; clusters run on, and attach again to the next one."""
    start_logging(settings.log_level, settings.log_format, daemon="federation")
    return run(lambda stop: FederationDaemon(settings).serve(stop))


class FederationDaemon:
    def __init__(self, settings: FederationSettings) -> None:
        self.settings = settings
        self.clock = WallClock()
        self.directory = Path(settings.state_dir)
        _enrol_itself(settings)
        self.credentials = load_credentials(Path(settings.credentials), "federation")
        plugins.discover()
        market = _market(settings)
        self.watch = market_watch(settings, market, self.clock, self._quoted)
        self.machine = Federation(
            market,
            settings.policy,
            FederationTimes(
                cluster_lease_ms=settings.cluster_lease_ms,
                node_lease_ms=settings.node_lease_ms,
                resend_ms=settings.resend_ms,
                retention_ms=settings.retention_ms,
                ended_kept=settings.ended_limit,
                bills_kept=settings.bill_limit,
                queue_max=settings.queue_limit,
            ),
            Rankers(lambda name: plugins.watched(name, settings.policy_budget_ms)),
            settings.home,
            replicates=bool(settings.dataset_hook),
        )
        self.bundles = Bundles(
            self.directory / "bundles", limit_bytes=settings.bundle_limit_mib << 20
        )

    async def serve(self, stop: asyncio.Event) -> None:
        settings = self.settings
        with contextlib.closing(open_store(self.directory / "federation.db", settings)) as store:
            self.driver = Driver(
                self.machine, store, self.clock, self._perform, pace(settings, settings.round_ms)
            )
            self.hook = DatasetHook(
                settings.dataset_hook, settings.dataset_hook_s, self.driver.note
            )
            self.driver.recover()
            self.clusters = Downlinks(
                CLUSTERS,
                settings.trust_domain,
                on_attached=lambda _, hello: self.driver.note(m.ClusterAttached(hello=hello)),
                on_message=self._cluster_said,
                on_detached=lambda name: self.driver.note(m.ClusterDetached(ClusterId(name))),
                translation=TRANSLATION,
            )
            self.clusters.serve(q.BUNDLE, self._bundle)
            self.application = FederationApplication(
                self.machine,
                self.driver,
                self.clusters,
                self.bundles,
                lambda: authority(Path(settings.authority), settings.trust_domain),
                self.clock,
                settings.trust_domain,
                self.watch,
            )
            await self._serve_all(stop)

    async def _serve_all(self, stop: asyncio.Event) -> None:
        settings = self.settings
        gate = Gate(settings.trust_domain, TRANSLATION)
        server = LinkServer(
            self.credentials,
            [
                self.clusters.handler(),
                services.federation(gate, self.application),
                services.federation_scheduler(gate, self.application.submit),
            ],
        )
        port = await listen(server, settings.listen)
        gateway = Gateway(self.application, _gateway_settings(settings, self.directory))
        running = asyncio.create_task(together(stop, self.driver.run(), self.watch.run()))
        hurrying = asyncio.create_task(keep_hurrying())
        try:
            try:
                await gateway.start()
            except GatewayError as error:
                raise CannotStart(f"rest_listen: {error}") from None
            say_ready(self.directory, port=port, rest=gateway.url)
            await running
        finally:
            hurrying.cancel()
            await self.hook.close()
            stop.set()
            await gateway.close()
            await server.stop()
            await asyncio.gather(running, return_exceptions=True)

    def _quoted(self, view: MarketView) -> None:
        self.driver.note(m.MarketQuoted(view))

    def _perform(self, command: m.FederationCommand) -> None:
        match command:
            case m.SendToCluster(cluster, message):
                self.clusters.send(cluster, message)
            case m.DisconnectCluster(cluster):
                self.clusters.disconnect(cluster, "your lease has ended; attach anew")
            case m.HaulCopy():
                self.hook.ask(command)

    def _cluster_said(self, name: str, message: Any) -> None:
        cluster = ClusterId(name)
        match message:
            case m.JobReport():
                self.driver.note(m.ClusterReported(cluster=cluster, report=message))
            case m.ClusterHeartbeat():
                self.driver.note(m.ClusterHeard(cluster=cluster, heartbeat=message))

    async def _bundle(self, _: str, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=q.GetBundle)
        async for piece in self.bundles.read(asked.digest):
            yield piece


def _enrol_itself(settings: FederationSettings) -> None:
    """At its first start alone, a federation makes its authority and its own certificate."""
    credentials = Path(settings.credentials)
    if (credentials / "cert.pem").exists() and not (Path(settings.authority)).exists():
        return  # it was enrolled by somebody else's authority
    host = settings.advertise.rpartition(":")[0].strip("[]")
    enrol(
        Path(settings.authority),
        settings.trust_domain,
        [("federation", "local", credentials)],
        (host,) if host else (),
    )


def _market(settings: FederationSettings) -> MarketView:
    try:
        return StaticMarket(Path(settings.prices) if settings.prices else None).view()
    except (OverlayError, OSError) as error:
        raise CannotStart(f"prices: {error}") from None


def _gateway_settings(settings: FederationSettings, directory: Path) -> GatewaySettings:
    host, _, port = settings.rest_listen.rpartition(":")
    token = ""
    if settings.rest_token_file:
        try:
            token = Path(settings.rest_token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise CannotStart(f"rest_token_file: {error}") from None
        if not token:
            raise CannotStart(
                f"rest_token_file: {settings.rest_token_file} is empty; write a token into it, or"
                " leave the setting out to serve REST on loopback without one"
            )
    secure = bool(token)
    credentials = Path(settings.credentials)
    return GatewaySettings(
        socket_path=settings.rest_socket or str(directory / SOCKET_NAME),
        host=host.strip("[]") or "127.0.0.1",
        port=int(port) if port else None,
        token=token,
        certificate_path=str(credentials / "cert.pem") if secure else "",
        key_path=str(credentials / "key.pem") if secure else "",
    )
