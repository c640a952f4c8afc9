"""Which hyperparameters to try next, by Optuna."""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from flead.contracts.messages import Hyperparameters
from flead.learning.multiplier import LEAST, MOST
from flead.settings import TuningBounds
from flead.tuning.bounds import clip

SCHEMA: Final = "optuna"
"""Of PostgreSQL, in the same database: Optuna makes and migrates its own tables there."""

FIRST_FACTORS: Final = (0.5, 2.0)
"""What a new study tries first: steps of the learning rate that no person need approve."""

LEAST_STEP: Final = 1.1
"""Factor from which on another learning rate is worth a trial of its own."""

BEYOND: Final = 4.0
"""By how much a rate is tried beyond the devices' own, where their multipliers end."""

ATTEMPTS: Final = 20
"""Asks for one proposal that is none of the others, before fewer are good enough."""


class Incumbent(NamedTuple):
    """What the fleet trains with, and its value in its study: lower is better."""

    hyperparameters: Hyperparameters
    value: float


class Proposal(NamedTuple):
    """Hyperparameters to try, with Optuna's number of them in the study."""

    number: int
    hyperparameters: Hyperparameters


def propose(
    database_url: str,
    study_name: str,
    incumbent: Incumbent,
    bounds: TuningBounds,
    *,
    count: int,
    seed: int,
    first_rate: float | None = None,
) -> list[Proposal]:
    """Ask for up to `count` different hyperparameters within the bounds.

    A new study is told of the incumbent first. Where `first_rate` is given and differs, the
    incumbent with this learning rate is tried first. The sampler is a tree-structured Parzen
    estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", NIPS); the same
    finished trials and seed give the same proposals. What was asked and not told, by a crash in
    between, is failed.
    """
    space = distributions(bounds)
    study = open_study(database_url, study_name, seed)
    inside = clip(incumbent.hyperparameters, bounds)
    known_rate = inside.learning_rate
    rates = [] if first_rate is None else [first_rate]
    if not study.get_trials(deepcopy=False):
        study.add_trial(
            optuna.create_trial(
                params=_parameters(inside, space),
                distributions=dict(space),
                value=incumbent.value,
            )
        )
        rates += [known_rate * factor for factor in FIRST_FACTORS]
    for lost in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(lost.number, state=TrialState.FAIL)
    for rate in rates:
        if max(rate, known_rate) >= LEAST_STEP * min(rate, known_rate):
            first = clip(msgspec.structs.replace(inside, learning_rate=rate), bounds)
            study.enqueue_trial(_parameters(first, space))
    proposals: list[Proposal] = []
    known = {incumbent.hyperparameters}
    for _ in range(ATTEMPTS):
        if len(proposals) == count:
            break
        trial = study.ask(space)
        proposed = msgspec.structs.replace(incumbent.hyperparameters, **trial.params)
        if proposed in known:
            study.tell(trial.number, state=TrialState.FAIL)
        else:
            known.add(proposed)
            proposals.append(Proposal(trial.number, proposed))
    return proposals


def rate_by_devices(median: float, fleet_rate: float) -> float:
    """Return the learning rate that the devices' own rates speak for.

    It is their median; where most multiply the fleet's rate by as little or as much as they may,
    it is one further out.
    """
    if median <= fleet_rate * LEAST:
        return median / BEYOND
    if median >= fleet_rate * MOST:
        return median * BEYOND
    return median


def tell(database_url: str, study_name: str, values: Mapping[int, float | None]) -> None:
    """Tell what trials were worth, None for one that could not be judged; again does no harm."""
    study = open_study(database_url, study_name, seed=0)
    for number, value in values.items():
        if value is None or not math.isfinite(value):
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        else:
            study.tell(number, value, skip_if_finished=True)


def distributions(bounds: TuningBounds) -> dict[str, BaseDistribution]:
    """Return the search space: rates and penalties by their logarithm."""
    return {
        "learning_rate": FloatDistribution(*bounds.learning_rate, log=True),
        "alpha": FloatDistribution(*bounds.alpha, log=True),
        "window_rows": IntDistribution(*bounds.window_rows, log=True),
        "local_epochs": IntDistribution(*bounds.local_epochs),
        "ditto_pull": FloatDistribution(*bounds.ditto_pull),
    }


def _parameters(
    hyperparameters: Hyperparameters, space: Mapping[str, BaseDistribution]
) -> dict[str, float]:
    return {name: getattr(hyperparameters, name) for name in space}


def open_study(database_url: str, name: str, seed: int) -> optuna.Study:
    """Return the study of a name, a new one when there is none; lower values are better."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = make_url(database_url).set(drivername="postgresql+psycopg2")
    options = f"{url.query.get('options', '')} -csearch_path={SCHEMA}".strip()
    storage = optuna.storages.RDBStorage(
        url.update_query_dict({"options": options}).render_as_string(hide_password=False),
        # A connection for each use: tasks are short.
        engine_kwargs={"poolclass": NullPool},
    )
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
        load_if_exists=True,
    )
