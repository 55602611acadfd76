"""Traps in one rank's process: at the n-th call of a function, or the n-th change of a file, something happens there.

Production code knows nothing of it. Ranks that the harness forks call `install` after the fork; ranks that a launcher
starts have `tests/faults/inject` on PYTHONPATH, whose sitecustomize.py does so before anything else is imported. A
function is wrapped where it is defined and wherever it was imported by name already; changes of files are told by
Python's audit events.

Standard library only: it is loaded before everything else.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "SPE_FAULT_PLAN"  # what the sitecustomize reads: a file with a plan as JSON
FILE_EVENT = "file event"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Trap:
    """`do` happens in rank `rank` before the `count`-th call (from 1) of `at`, `module:Class.function`.

    `at` may be `FILE_EVENT`: the `count`-th opening for writing, renaming, making or removing of something in the
    run's folder. `do`: see `ACTIONS`.
    """

    rank: int
    at: str
    count: int = 1
    do: str = "kill"


@dataclass(frozen=True)
class Plan:
    """What ranks are given: traps, functions whose calls are counted, and where to write what happened."""

    notes: str  # folder: pid.RANK, fired.RANK, counts.RANK, ids.RANK
    output: str  # the run's folder
    traps: tuple[Trap, ...] = ()
    counted: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        values = json.loads(text)
        traps = tuple(Trap(**trap) for trap in values["traps"])
        return cls(values["notes"], values["output"], traps, tuple(values["counted"]))


class Injector:
    """The traps of this rank, the calls that it has counted and the sentences that it trained on."""

    def __init__(self, plan: Plan, rank: int) -> None:
        self.plan, self.rank = plan, rank
        self.notes = Path(plan.notes)
        self.traps = [trap for trap in plan.traps if trap.rank == rank]
        self.counts: dict[str, int] = {}
        self._lock = threading.Lock()  # a checkpoint may be written by a thread

    def install(self) -> None:
        """Set everything up in this process."""
        self.note("pid", {"pid": os.getpid(), "time": time.time()})
        hooks: dict[str, Callable[..., tuple]] = {}
        for at in {*self.plan.counted, *(trap.at for trap in self.traps)} - {FILE_EVENT}:
            hooks[at] = functools.partial(self._called, at)
        for at, describe in RECORDED.items():
            hooks[at] = functools.partial(self._recorded, describe, hooks.get(at))
        for at, before in hooks.items():
            _when_loaded(at, before)
        if FILE_EVENT in self.plan.counted or any(trap.at == FILE_EVENT for trap in self.traps):
            sys.addaudithook(self._audit)

    def note(self, name: str, value: Any) -> None:
        """Append one line to a file of this rank; whole even if the process ends right after."""
        line = json.dumps(value) + "\n"
        descriptor = os.open(self.notes / f"{name}.{self.rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def write_counts(self) -> None:
        """How often each counted place was reached, at the end of a run."""
        self.note("counts", self.counts)

    def _called(self, at: str, *args: Any) -> tuple:
        with self._lock:
            self.counts[at] = count = self.counts.get(at, 0) + 1
        for trap in self.traps:
            if trap.at == at and trap.count == count:
                self.note("fired", {**asdict(trap), "time": time.time()})
                args = ACTIONS[trap.do](self, *args)
        return args

    def _recorded(self, describe: Callable[..., Any], then: Callable[..., tuple] | None, *args: Any) -> tuple:
        self.note("ids", {"time": time.time(), **describe(*args)})
        return then(*args) if then else args

    def _audit(self, event: str, args: tuple) -> None:
        if event == "open":
            path, mode, flags = args
            changes = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
                isinstance(flags, int) and flags & _WRITING
            )
            if not changes:
                return
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"):
            path = args[0]
        else:
            return
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.plan.output):
            self._called(FILE_EVENT)


def _kill(injector: Injector, *args: Any) -> tuple:
    os.kill(os.getpid(), signal.SIGKILL)
    return args


def _kill_node(injector: Injector, *args: Any) -> tuple:
    """All processes of this run at once, as a node that loses power."""
    os.killpg(os.getpgid(0), signal.SIGKILL)
    return args


def _pause(injector: Injector, *args: Any) -> tuple:
    """Stop here; the harness continues the process."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return args


def _terminate(injector: Injector, *args: Any) -> tuple:
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
    return args


def _spoil(injector: Injector, *args: Any) -> tuple:
    """The loss that a backward pass begins with is no number."""
    engine, loss, *others = args
    return (engine, loss * float("nan"), *others)


def _spoil_weights(injector: Injector, *args: Any) -> tuple:
    """The weights that this rank computes with are NaN from now on."""
    engine = args[0]
    for parameter in engine.module.parameters():
        parameter.data.fill_(float("nan"))  # at stage 3 small ones stay gathered
        if hasattr(parameter, "ds_tensor"):
            parameter.ds_tensor.data.fill_(float("nan"))
    return args


def _fill_disk(injector: Injector, *args: Any) -> tuple:
    """Fill the file system of the run's folder to its last byte, by a file beside it."""
    descriptor = os.open(Path(injector.plan.output).parent / "ballast", os.O_WRONLY | os.O_CREAT)
    for size in (1 << 20, 1 << 12, 1):
        try:
            while os.write(descriptor, b"\0" * size):
                pass
        except OSError:
            continue
    os.close(descriptor)
    return args


ACTIONS: dict[str, Callable[..., tuple]] = {
    "kill": _kill,
    "kill node": _kill_node,
    "pause": _pause,
    "ask to stop": _terminate,
    "spoil loss": _spoil,
    "spoil weights": _spoil_weights,
    "fill disk": _fill_disk,
}


def _pretraining_ids(step: Any, number: int, rate: float, micro_batches: Any, *rates: Any) -> dict[str, Any]:
    return {"step": number, "ids": [i for b in micro_batches for i in b.sentence_ids_B.tolist()]}


def _finetuning_ids(data: Any, step: int, rank: int, ranks: int) -> dict[str, Any]:
    from spe_dist.finetuning.sampling import epoch_batches, part_of_rank

    train = data.config.train
    epoch, place = divmod(step, data.steps_per_epoch)
    whole = epoch_batches(data.n_sentences, train.batch_sentences, train.seed, epoch)[place]
    return {"step": step, "ids": data.numbers_N[part_of_rank(whole, rank, ranks)].tolist()}


# Called once a step; what is told of its arguments goes into ids.RANK.
RECORDED: dict[str, Callable[..., dict[str, Any]]] = {
    "spe_dist.pretraining.step:TrainingStep.__call__": _pretraining_ids,
    "spe_dist.finetuning.data:TrainingData.batch": _finetuning_ids,
}


def _when_loaded(at: str, before: Callable[..., tuple]) -> None:
    """Have `before(*arguments)` called before each call of `at`, now or as soon as its module is imported."""
    module_name, _, path = at.partition(":")
    if module_name in sys.modules:
        _wrap(sys.modules[module_name], path, before)
    else:
        sys.meta_path.insert(0, _Finder(module_name, lambda module: _wrap(module, path, before)))


def _wrap(module: ModuleType, path: str, before: Callable[..., tuple]) -> None:
    *owners, name = path.split(".")
    owner: Any = functools.reduce(getattr, owners, module)
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return original(*before(*args), **kwargs)

    setattr(owner, name, wrapped)
    if owner is module:
        replace_by_name(original, wrapped)


def replace_by_name(original: Any, new: Any) -> None:
    """Put `new` wherever a module of the package has imported `original` by name."""
    for module in [m for n, m in sys.modules.items() if n.startswith("spe_dist.")]:
        for attribute, value in list(vars(module).items()):
            if value is original:
                setattr(module, attribute, new)


class _Finder(importlib.abc.MetaPathFinder):
    """Loads one module as ever, and changes it before anyone has it."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self.name, self.change = name, change

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        sys.meta_path.remove(self)  # the next finders load it; another trap in it comes first
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            self.change(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def install(plan: Plan, rank: int) -> Injector:
    """Arm this process."""
    injector = Injector(plan, rank)
    injector.install()
    return injector
