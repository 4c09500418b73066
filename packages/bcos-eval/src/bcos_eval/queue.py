"""The queue that all workers of a study share: an Optuna study, a trial for each attempt at a unit.

A unit may have several attempts, one after the other; the rule that makes it count once is: of a unit's attempts that
have not failed, the one with the lowest number is the unit, and whoever holds another gives it up. So it does no harm
to put a unit in again, whoever does it and however often, and a unit whose worker was killed is never lost.
"""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bcos_core.run.error import InputError

from .space import make_pruner, make_sampler
from .study import Plan, Unit, plan_from_dict, plan_to_dict

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

QUEUE_VARIABLE = "BCOS_EVAL_QUEUE"
"""The environment's word on where a queue is; a command's --queue goes before it."""
_PLACE = "queue.txt"
GRACE_SECONDS = 120.0
"""A worker on another machine counts as dead when its heart has not beaten for so long."""
MAX_LOST = 3
"""Times that a unit may lose its worker before it counts as what kills them."""


@dataclass(frozen=True)
class Attempt:
    """A unit that somebody works on."""

    trial: int
    """The storage's id of the trial."""
    number: int
    unit: Unit
    lost: int
    """How often the unit lost its worker before."""


@dataclass(frozen=True)
class UnitState:
    """Where a unit stands."""

    unit: Unit
    state: str
    """"waiting", "running", "done" or "failed"."""
    result: Mapping[str, Any]
    """Of a unit that is done: metrics, counts, seconds and run id."""
    reason: str = ""
    """Why it failed."""


class UnitQueue:
    """The units of one study.

    Args:
        plan: The study, or the tuning, whose units they are.
        storage: An Optuna storage.
        optuna_study: The Optuna study in it.
    """

    def __init__(self, plan: Plan, storage: "optuna.storages.BaseStorage", optuna_study: "optuna.Study") -> None:
        self.plan = plan
        self._storage = storage
        self._optuna = optuna_study
        self._id = storage.get_study_id_from_name(optuna_study.study_name)
        self._beats: dict[int, tuple[int, float]] = {}

    @classmethod
    def create(cls, plan: Plan, location: str) -> "UnitQueue":
        """Make the queue of a new study and put all its units in.

        Args:
            plan: The study or tuning.
            location: A path for a journal file, or a database's URL (postgresql://...).

        Raises:
            InputError: If a study of that name is there already, or the place cannot be written.
        """
        import optuna

        from .stats import higher_is_better

        with _reachable(location):
            storage = _open_storage(location)
            try:
                direction = "maximize" if higher_is_better(plan.metric) else "minimize"
                inner = optuna.create_study(storage=storage, study_name=plan.name, direction=direction)
            except optuna.exceptions.DuplicatedStudyError:
                raise InputError(
                    f'there is a study "{plan.name}" already; --resume {plan.name} goes on with it, '
                    "--name gives this one another name"
                ) from None
            inner.set_user_attr("plan", plan_to_dict(plan))
            queue = cls(plan, storage, inner)
            queue.put_missing()
        return queue

    @classmethod
    def open(cls, name: str, location: str) -> "UnitQueue":
        """Join the queue of a study.

        Raises:
            InputError: If there is no such study, or the place cannot be reached.
        """
        import optuna

        if "://" not in location and not pathlib.Path(location).is_file():
            raise InputError(f'no study "{name}": no queue at {location}')
        with _reachable(location):
            storage = _open_storage(location)
            try:
                inner = optuna.load_study(storage=storage, study_name=name)
            except KeyError:
                raise InputError(f'no study "{name}" in {without_password(location)}') from None
            if "plan" not in inner.user_attrs:
                raise InputError(f'study "{name}" was interrupted while it was made; give the next another --name')
            return cls(plan_from_dict(inner.user_attrs["plan"]), storage, inner)

    def put_missing(self, *, failed: bool = False) -> int:
        """Put units in that are not there; with ``failed`` those, too, that failed. Returns how many."""
        known = self._by_unit()
        count = 0
        for unit in self.plan.units():
            attempts = known.get(unit.id, [])
            if not attempts or (failed and not any(_is_alive(t) for t in attempts)):
                self._put(unit, lost=0)
                count += 1
        return count

    def claim(self) -> Attempt | None:
        """Take a waiting unit, or one whose worker has died; None where nothing is to be had."""
        from optuna.trial import TrialState

        self.recover()
        for trial in self._trials(TrialState.WAITING):
            try:
                mine = self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            except _finished_error():
                mine = False
            if not mine:  # another was quicker
                continue
            attempt = Attempt(trial._trial_id, trial.number, _unit(trial), trial.user_attrs["lost"])
            self._set(attempt, owner=_myself(), beat=0)
            if any(t.number < trial.number and _is_alive(t) for t in self._by_unit()[attempt.unit.id]):
                self._finish(attempt.trial, reason="superseded")
                continue
            return attempt
        return None

    def beat(self, attempt: Attempt) -> bool:
        """Say that the attempt's worker lives, every :data:`GRACE_SECONDS` / 6; False if it was taken for dead."""
        try:
            self._set(attempt, beat=int(time.time()))
        except _finished_error():
            return False
        return True

    def complete(self, attempt: Attempt, result: Mapping[str, Any]) -> bool:
        """Hand in a unit's result; False if the unit had been taken away as lost."""
        try:
            self._set(attempt, result=dict(result))
        except _finished_error():
            return False
        return self._finish(attempt.trial, value=result.get("value", 0.0), pruned=result.get("pruned", False))

    def trial(self, attempt: Attempt, *, sampler_seed: int) -> "optuna.Trial":
        """The attempt as Optuna's own trial, which proposes options and says when to give up."""
        import optuna

        # loaded anew: Optuna keeps what it read of other trials until its own `ask`, which is not called here
        fresh = optuna.load_study(
            storage=self._storage, study_name=self.plan.name, sampler=make_sampler(sampler_seed), pruner=make_pruner()
        )
        return optuna.Trial(fresh, attempt.trial)

    def fail(self, attempt: Attempt, reason: str) -> None:
        """Say that a unit cannot be done: it is not tried again by itself."""
        self._finish(attempt.trial, reason=reason)

    def release(self, attempt: Attempt) -> None:
        """Give a unit back undone."""
        if self._finish(attempt.trial, reason="released"):
            self._put(attempt.unit, lost=attempt.lost, after=attempt.trial)

    def recover(self) -> list[Unit]:
        """Put units in again whose worker is dead; returns them."""
        from optuna.trial import TrialState

        found = []
        for trial in self._trials(TrialState.RUNNING):
            if not self._is_dead(trial):
                continue
            unit, lost = _unit(trial), trial.user_attrs["lost"] + 1
            give_up = lost >= MAX_LOST
            reason = f"lost its worker {lost} times" if give_up else "lost"
            if self._finish(trial._trial_id, reason=reason) and not give_up:
                self._put(unit, lost=lost, after=trial._trial_id)
                found.append(unit)
        # whoever took a unit from the dead may have died before it put it in again
        for attempts in self._by_unit().values():
            last = _last(attempts)
            if last.user_attrs.get("reason") in ("lost", "released") and not any(map(_is_alive, attempts)):
                self._put(_unit(last), lost=last.user_attrs["lost"] + 1, after=last._trial_id)
        return found

    def states(self) -> list[UnitState]:
        """Where every unit stands, in the study's order."""
        by_unit = self._by_unit()
        return [_state(unit, by_unit.get(unit.id, [])) for unit in self.plan.units()]

    def _put(self, unit: Unit, *, lost: int, after: int | None = None) -> None:
        """Add an attempt; ``after`` another, whose options it takes over if they were proposed by a sampler."""
        import optuna
        from optuna.trial import TrialState

        proposed = {} if after is None else self._storage.get_trial(after).params
        self._storage.create_new_trial(
            self._id,
            optuna.trial.create_trial(
                state=TrialState.WAITING,
                user_attrs={"unit": asdict(unit), "lost": lost},
                system_attrs={"fixed_params": proposed} if proposed else {},
            ),
        )

    def _finish(self, trial: int, *, reason: str = "", value: float | None = None, pruned: bool = False) -> bool:
        """End an attempt, as failed for a reason or with a value; False if it was ended before.

        Of several that try, one succeeds.
        """
        from optuna.trial import TrialState

        state = TrialState.FAIL if value is None else TrialState.PRUNED if pruned else TrialState.COMPLETE
        try:
            if reason:
                self._storage.set_trial_user_attr(trial, "reason", reason)
            return self._storage.set_trial_state_values(trial, state, None if value is None else [value])
        except _finished_error():
            return False

    def _set(self, attempt: Attempt, **attributes: Any) -> None:
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(attempt.trial, name, value)

    def _trials(self, *states: "optuna.trial.TrialState") -> "list[FrozenTrial]":
        return self._storage.get_all_trials(self._id, deepcopy=False, states=states or None)

    def _by_unit(self) -> "dict[str, list[FrozenTrial]]":
        found: dict[str, list[FrozenTrial]] = {}
        for trial in sorted(self._trials(), key=lambda t: t.number):
            found.setdefault(_unit(trial).id, []).append(trial)
        return found

    def _is_dead(self, trial: "FrozenTrial") -> bool:
        owner = trial.user_attrs.get("owner")
        if owner is not None and owner["host"] == socket.gethostname():
            process = _process(owner)
            if process is None or process == "certain":
                return process is None
            # the number may have passed to another process, or the clock been set: its heart decides
        # by this observer's clock: those of two machines may differ
        now, beat = time.monotonic(), trial.user_attrs.get("beat", -1)
        seen, since = self._beats.get(trial.number, (None, now))
        if seen != beat:
            self._beats[trial.number] = (beat, now)
            return False
        return now - since > GRACE_SECONDS


def default_location(folder: pathlib.Path) -> str:
    """Where the queue of the study in this folder is: as it was made with, else a journal file beside its scores."""
    noted = folder / _PLACE
    return noted.read_text().strip() if noted.exists() else str(folder / "queue.journal")


def note_location(folder: pathlib.Path, location: str) -> None:
    """Remember where a study's queue is, unless that would keep a password in a file."""
    if without_password(location) == location:
        (folder / _PLACE).write_text(location + "\n")


def _open_storage(location: str) -> "optuna.storages.BaseStorage":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" in location:
        if location.startswith("sqlite"):
            raise InputError("--queue: SQLite loses claims of several workers; a journal file's path or postgresql://")
        return optuna.storages.RDBStorage(location)
    from optuna.storages.journal import JournalFileBackend

    # Optuna's lock is a link to the path as given, and has to lead there from wherever it stands
    return optuna.storages.JournalStorage(JournalFileBackend(os.path.abspath(location)))


@contextlib.contextmanager
def _reachable(location: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except ImportError:
        raise InputError(
            "--queue: a database needs its driver; for postgresql:// install bcos-eval[postgres]"
        ) from None
    except Exception as error:
        known = {"OSError", "SQLAlchemyError", "StorageInternalError", "JSONDecodeError", "UnicodeDecodeError"}
        if {c.__name__ for c in type(error).__mro__} & known:
            text = str(getattr(error, "orig", error)).strip().splitlines()[0]
            raise InputError(f"the queue {without_password(location)} cannot be used: {text}") from None
        raise


def without_password(location: str) -> str:
    """A database's URL as it may be shown."""
    scheme, separator, rest = location.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else location


def _finished_error() -> type[Exception]:
    from optuna.exceptions import UpdateFinishedTrialError

    return UpdateFinishedTrialError


def _unit(trial: "FrozenTrial") -> Unit:
    return Unit(**trial.user_attrs["unit"])


def _is_alive(trial: "FrozenTrial") -> bool:
    return trial.state.name != "FAIL"


def _myself() -> dict[str, Any]:
    import psutil

    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _process(owner: Mapping[str, Any]) -> Literal["certain", "uncertain"] | None:
    """Whether there is a process of the owner's number, and whether it is certainly the owner."""
    import psutil

    try:
        process = psutil.Process(owner["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return "certain" if abs(process.create_time() - owner["started"]) < 1 else "uncertain"
    except psutil.NoSuchProcess:
        return None


def _last(attempts: "list[FrozenTrial]") -> "FrozenTrial":
    """The attempt that says how a unit without a living one ended: not one that was given up for another."""
    return next((t for t in reversed(attempts) if t.user_attrs.get("reason") != "superseded"), attempts[-1])


def _state(unit: Unit, attempts: "list[FrozenTrial]") -> UnitState:
    alive = [t for t in attempts if _is_alive(t)]
    if not alive:
        last = _last(attempts) if attempts else None
        if last is None or last.user_attrs.get("reason") in ("lost", "released"):
            return UnitState(unit, "waiting", {})
        return UnitState(unit, "failed", {}, last.user_attrs.get("reason", ""))
    trial = alive[0]
    name = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "done", "PRUNED": "done"}[trial.state.name]
    return UnitState(unit, name, trial.user_attrs.get("result", {}))
