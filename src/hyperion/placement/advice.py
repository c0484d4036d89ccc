"""Where jobs of the past could have run, by the same objective, in all that a market offers. Pure.

Prices are taken for an hour and a shape of job once; each job's own hours are put in afterwards.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from hyperion.model.job import CARBON_USD_PER_TONNE, Budget, DataSource, Job
from hyperion.model.market import Market, MarketView, Region
from hyperion.model.resources import MILLI, ResourceRequest
from hyperion.placement import objective, offers
from hyperion.placement.choice import shape_key
from hyperion.placement.feasibility import residence_refusal

USD_PER_TONNE = CARBON_USD_PER_TONNE
MEMO = 20_000
CONSTRAINTS = ("region", "continent", "anywhere")


class Assumed(Struct, frozen=True, kw_only=True):
    """What the past does not tell."""

    home: str
    """The region in which all was paid on demand."""
    regions: tuple[str, ...] = ()
    """Only these, or those that begin so; empty: all."""
    usd_per_tonne: float = USD_PER_TONNE
    data_gib: float = 0.0
    """Read by each job from home."""
    spot: bool = True
    spot_loss: float = 0.1
    """Of the hours on spot machines, what is done again since they were taken away."""
    whole: bool = False
    """A job pays for whole machines of its own, and not for its share of them."""


class Option(Struct, frozen=True):
    """A region and market, with the best machine there for one shape of job."""

    region: str
    market: Market
    instance_type: str
    usd_per_hour: float
    terms: objective.Terms


class Options(Struct, frozen=True):
    """The options of a shape, in columns too."""

    all: tuple[Option, ...]
    usd_per_hour: NDArray[np.float64]
    """With what is lost on spot machines, as is the carbon."""
    gco2e_per_hour: NDArray[np.float64]
    egress_usd: NDArray[np.float64]
    home: int
    """Which of them is on demand at home; -1: none."""
    allowed: dict[str, NDArray[np.bool_]]
    """By constraint."""


class Chosen(Struct, frozen=True):
    """A place for one job of the past, and its price there."""

    option: Option
    price: objective.Price


class Adviser:
    """Answers where jobs would have gone; shapes that nobody can tell apart are priced once."""

    def __init__(self, market: MarketView, assumed: Assumed) -> None:
        self.market = market
        self.assumed = assumed
        self._known: dict[Hashable, Options] = {}

    def options(self, job: Job) -> Options:
        shape = shape_key(job)
        found = self._known.get(shape)
        if found is None:
            if len(self._known) >= MEMO:
                self._known.clear()
            found = self._known[shape] = self._priced(self._placeable(job))
        return found

    def at_home(self, job: Job, hours: float) -> Chosen | None:
        """On demand where everything was; None: nothing of the kind is offered there."""
        found = self.options(job)
        return self._chosen(job, found, found.home, hours) if found.home >= 0 else None

    def best(self, job: Job, hours: float, within: str) -> Chosen | None:
        """By the objective: ``region`` is home's, ``continent`` is home's, else anywhere."""
        found = self.options(job)
        weight = self.assumed.usd_per_tonne / 1e6
        score = hours * (found.usd_per_hour + weight * found.gco2e_per_hour) + found.egress_usd
        allowed = found.allowed[within]
        if not allowed.any():
            return None
        return self._chosen(job, found, int(np.argmin(np.where(allowed, score, np.inf))), hours)

    def _may_be(self, job: Job, region: str) -> bool:
        """By its ``regions``; at home it has been."""
        return region == self.assumed.home or not residence_refusal(job, "", region)

    def _is_home(self, option: Option) -> bool:
        return option.region == self.assumed.home and option.market is Market.ON_DEMAND

    def _within(self, option: Option, within: str) -> bool:
        home = self.assumed.home
        if option.region == home:
            return True
        if within == "region":
            return False
        named = self.assumed.regions
        if named and not any(option.region.startswith(name) for name in named):
            return False
        there, here = (continent(self.market.regions.get(x)) for x in (option.region, home))
        return within != "continent" or (there != "" and there == here)

    def _chosen(self, job: Job, found: Options, n: int, hours: float) -> Chosen:
        option = found.all[n]
        price = objective.price_from(
            self._placeable(job), option.terms, option.usd_per_hour, hours * self._times(option)
        )
        return Chosen(option, price)

    def _times(self, option: Option) -> float:
        return 1.0 + self.assumed.spot_loss if option.market is Market.SPOT else 1.0

    def _placeable(self, job: Job) -> Job:
        """The job with its data at home, free to go wherever its machines are."""
        size_gib, home = self.assumed.data_gib, self.assumed.home
        data = (DataSource(uri="past:", size_gib=size_gib, region=home),) if size_gib else ()
        return replace(job, data=data, users_in=(), budget=Budget())

    def _priced(self, job: Job) -> Options:
        parts = [self._part(job, request, n) for request, n in _needs(job)]
        both = set(parts[0]).intersection(*parts[1:])
        all_ = [_joined([part[place] for part in parts]) for place in sorted(both, key=_by_name)]
        times = np.array([self._times(option) for option in all_])
        return Options(
            tuple(all_),
            times * np.array([option.usd_per_hour for option in all_]),
            times * np.array([option.terms.gco2e_per_hour for option in all_]),
            np.array([option.terms.egress_usd for option in all_]),
            next((n for n, option in enumerate(all_) if self._is_home(option)), -1),
            {w: np.array([self._within(o, w) for o in all_], np.bool_) for w in CONSTRAINTS},
        )

    def _part(
        self, job: Job, request: ResourceRequest, count: int
    ) -> dict[tuple[str, Market], Option]:
        """The cheapest machines for so many replicas, by region and market."""
        columns = offers.columns(self.market)
        free = replace(request, infra="", use_spot=None if self.assumed.spot else False, custom={})
        rows, per_machine = columns.suitable(free, ())
        if self.assumed.whole:
            machines = np.ceil(count / per_machine)
        else:
            machines = count * _share(columns, request, rows)
        usd = machines * columns.usd_per_hour[rows]
        out: dict[tuple[str, Market], Option] = {}
        alone = replace(job, roles=(), replicas=count, array=None, elastic=None)
        for i in np.argsort(usd, kind="stable").tolist():
            offer = self.market.offers[int(rows[i])]
            place = offer.region, offer.market
            if place not in out and self._may_be(job, offer.region):
                gpu_type = offer.gpu_type if request.gpus_milli else ""
                terms = objective.region_terms(alone, free, offer.region, self.market, gpu_type)
                out[place] = Option(*place, offer.instance_type, float(usd[i]), terms)
        return out


def continent(region: Region | None) -> str:
    """Of a region by its coordinates, roughly; empty where nobody knows them."""
    if region is None or not region.has_place:
        return ""
    north, east = region.latitude, region.longitude
    if east < -30:
        return "North America" if north >= 13 else "South America"
    if north < -10 and east > 110:
        return "Oceania"
    if north >= 34 and east < 45:
        return "Europe"
    return "Africa" if east < 52 and (north < 13 or east < 33) else "Asia"


def _needs(job: Job) -> Sequence[tuple[ResourceRequest, int]]:
    if job.roles:
        return [(role.resources, role.replicas) for role in job.roles]
    return [(job.alternatives[0], 1 if job.array is not None else job.replicas)]


def _share(
    columns: offers.Columns, request: ResourceRequest, rows: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Of each machine, the largest part of one of its resources that one replica takes."""
    share = request.cpus_milli / np.maximum(columns.cpus_milli[rows], 1)
    share = np.maximum(share, request.memory_mib / np.maximum(columns.memory_mib[rows], 1))
    if request.gpus_milli:
        share = np.maximum(share, request.gpus_milli / np.maximum(columns.gpus[rows] * MILLI, 1))
    return share


def _joined(parts: Iterable[Option]) -> Option:
    """The parts of one job, all in the same region and market; the data are brought once."""
    first, *others = parts
    for part in others:
        terms = objective.Terms(
            max(first.terms.egress_usd, part.terms.egress_usd),
            first.terms.gco2e_per_hour + part.terms.gco2e_per_hour,
            first.terms.latency_ms,
            first.terms.late_ms,
        )
        names = f"{first.instance_type}+{part.instance_type}"
        usd = first.usd_per_hour + part.usd_per_hour
        first = Option(first.region, first.market, names, usd, terms)
    return first


def _by_name(place: tuple[str, Market]) -> tuple[str, str]:
    return place[0], place[1].value
