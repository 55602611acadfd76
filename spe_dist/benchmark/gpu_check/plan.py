"""The stages of a check in the order of their worth, with the question that each answers. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spe_dist.errors import ConfigError
from spe_dist.utils.wording import nearest_or_all


@dataclass(frozen=True)
class Plan:
    """A stage.

    Attributes:
        name: of one word, as `--only` takes it.
        asks: what it answers.
        function: that runs it, as module:name of the package `stages`.
        limit_s: time on a GPU.
        small_s: time of the small form, on a busy machine.
        trains: whether it needs the check's data.
    """

    name: str
    asks: str
    function: str
    limit_s: float
    small_s: float
    trains: bool = False


# What tells most comes first: should the machine be lost, what is missing is what matters least.
STAGES = (
    Plan("machine", "what is installed, what can the device do at most?", "machine:check_machine", 35, 100),
    Plan("float16", "does the default path train and resume?", "trainings:check_float16", 45, 200, trains=True),
    Plan("tests", "do the kernels for GPUs compute what they should?", "gpu_tests:check_tests", 60, 100),
    Plan("throughput", "how many sentences a second, in which way?", "throughput:check_throughput", 150, 200),
    Plan("profile", "which kernels take the time, is the device idle?", "profile:check_profile", 40, 100),
    Plan("stages", "do the other stages and precisions train?", "trainings:check_stages", 60, 400, trains=True),
    Plan("parts", "what do the parts of a step take, in which way least?", "parts:check_parts", 60, 100),
    Plan("finetuning", "do fine-tuning and prediction run?", "trainings:check_finetuning", 40, 150, trains=True),
    Plan("launchers", "do the launchers start it?", "trainings:check_launchers", 30, 150, trains=True),
)


def chosen(names: Iterable[str]) -> list[Plan]:
    """The stages of these names, in their own order; all where there are no names.

    Raises:
        ConfigError: a name is unknown.
    """
    wanted = list(names)
    known = [plan.name for plan in STAGES]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--only {name}: there is no such stage{nearest_or_all(name, known)}")
    return [plan for plan in STAGES if not wanted or plan.name in wanted]
