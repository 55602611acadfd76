"""Builds of shards under datatrove's executors: in local processes, or as job arrays of Slurm.

datatrove is what text at this scale is cleaned with, needs no service beside the scheduler, and marks finished tasks by
files, so that the same command continues. It is optional: `pip install 'spe-dist[cluster]'`.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from datatrove.executor import LocalPipelineExecutor, SlurmPipelineExecutor
from loguru import logger

from spe_dist.data.build.jobs import active_jobs, record_jobs
from spe_dist.data.build.many_machines import DividedBuild, Stage
from spe_dist.data.build.plan import begin_or_continue, finished_build
from spe_dist.data.build.reading import choose_reader
from spe_dist.data.build.report import closing_table, warnings_of
from spe_dist.data.build.request import BuildRequest
from spe_dist.data.build.stages import write_tokenizer
from spe_dist.data.shards.manifest import MANIFEST_NAME, Manifest
from spe_dist.errors import ConfigError, LaunchError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.parallel import forks_end_with_this_process
from spe_dist.utils.wording import how_many

ExecutorChoice = Literal["local", "slurm"]

BYTES_A_TASK = 64 << 20  # of the input as it lies on disk: minutes of work
MAX_TASKS = 1_000  # Slurm's usual limit of a job array
POLL_S = 5.0
_BUILD_ID = "build_id"


@dataclass(frozen=True)
class SlurmOptions:
    """What the jobs of a build are submitted with.

    time: the limit of a task, as sbatch takes it
    partition: none: the cluster's default
    memory_gib: of each process
    sbatch: further options by their long names, such as {"account": "nlp"}
    wait: until the build has ended; else the call returns when everything is submitted
    """

    time: str = "4:00:00"
    partition: str | None = None
    memory_gib: int = 4
    sbatch: Mapping[str, str] = field(default_factory=dict)
    wait: bool = False


def make_shards_divided(
    inputs: Sequence[str],
    output: str,
    *,
    executor: ExecutorChoice,
    tasks: int | None = None,
    tokenizer: str | None = None,
    processes: int | None = None,
    max_bad_share: float = 0.01,
    overwrite: bool = False,
    quiet: bool = False,
    slurm: SlurmOptions | None = None,
    **settings: Any,
) -> Manifest | None:
    """Make shards as `make.make_shards` does, with the same bytes, divided into tasks that share the output folder.

    The same call continues a build whose tasks were lost. Logs of the tasks lie beside the output, in OUTPUT.logs.

    Args:
        inputs, output, tokenizer, max_bad_share, overwrite, quiet, settings: as in `make_shards`.
        executor: "local" runs the tasks on this machine, "slurm" submits them.
        tasks: into which each stage is divided; none: by the size of the input.
        processes: with "local" how many tasks run at once, with "slurm" the processes (CPUs) of each task; none: 1.
        slurm: how jobs are submitted.

    Returns:
        The manifest; None where jobs were submitted and not waited for.

    Raises:
        ConfigError: a setting is out of range, or datatrove is not installed.
        DataError: the text, the tokenizer or the output folder cannot be used as asked.
        LaunchError: Slurm refuses the jobs, or they ended without a manifest.
    """
    _check(executor, tasks, processes)
    slurm = slurm or SlurmOptions()
    say = (lambda *_, **__: None) if quiet else print
    request = BuildRequest.check(inputs, output, tokenizer, settings)
    with request.open_output(overwrite):
        finished = finished_build(request.output, request.plan(), request.files)
        if finished is not None:
            say(f"{output} is complete already\n{closing_table(finished)}", flush=True)
            return finished
        build = _begin(request, executor, tasks, processes, max_bad_share, say)
        logs = _logs_folder(build)
        logger.disable("datatrove")  # what this process would print; the tasks' logs are in files
        if executor == "local":
            _run_here(build, logs, processes or 1)
        else:
            jobs = _submit(build, logs, slurm)
            say(f"submitted jobs {', '.join(jobs)}; logs in {logs}", flush=True)
    if executor == "slurm" and not slurm.wait:
        say(
            f"{request.output / MANIFEST_NAME} appears when they have ended; the same command shows its figures then, "
            "or continues where a task was lost"
        )
        return None
    if executor == "slurm":
        _wait_for(jobs, build, logs, say)
    return _ended(build, logs, say)


def _check(executor: str, tasks: int | None, processes: int | None) -> None:
    for name, value in (("tasks", tasks), ("processes", processes)):
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} does no work; choose at least 1")
    if executor not in get_args(ExecutorChoice):
        raise ConfigError(f"executor={executor!r} is unknown; choose one of {', '.join(get_args(ExecutorChoice))}")
    if executor == "slurm" and shutil.which("sbatch") is None:
        raise LaunchError("there is no sbatch on this machine; type the command on a login node of the cluster")


def _begin(
    request: BuildRequest,
    executor: ExecutorChoice,
    tasks: int | None,
    processes: int | None,
    max_bad_share: float,
    say: Callable[..., None],
) -> DividedBuild:
    """Decide how the text is read, and begin or continue the build in its folder."""
    plan = request.plan()
    reader, decisions = choose_reader(request.files, request.settings)
    _, continued = begin_or_continue(request.output, plan, request.files)
    if request.tokenizer is not None:
        write_tokenizer(request.output, lambda: request.tokenizer)
    tasks = tasks or max(1, min(MAX_TASKS, request.input_bytes // BYTES_A_TASK))
    say(
        f"{how_many(len(request.files), 'file')}, {how_many(request.input_bytes, 'byte')}, "
        f"{how_many(tasks, 'task')} a stage"
    )
    say("\n".join([*decisions, *(["continuing an interrupted build"] if continued else [])]), flush=True)
    build = DividedBuild(
        output=request.output.absolute(),
        reader=replace(reader, files=[replace(file, path=file.path.absolute()) for file in reader.files]),
        settings=request.settings,
        tokenizer_name=request.tokenizer_name,
        request=dict(plan.content),
        max_bad_share=max_bad_share,
        tasks=tasks,
        processes=processes or 1 if executor == "slurm" else 1,
    )
    shutil.rmtree(build.failures, ignore_errors=True)
    return build


def _logs_folder(build: DividedBuild) -> Path:
    """Where the executor keeps logs and marks what is done: one folder for a build and a number of tasks."""
    path = build.scratch / _BUILD_ID
    if not path.is_file():
        write_atomically(path, secrets.token_hex(4))
    name = f"{path.read_text()}-{build.tasks}"
    return build.output.with_name(f"{build.output.name}.logs") / name


def _run_here(build: DividedBuild, logs: Path, processes: int) -> None:
    for stage in build.stages:
        executor = LocalPipelineExecutor(
            pipeline=[stage],
            tasks=stage.tasks,
            workers=min(processes, stage.tasks),
            logging_dir=str(logs / stage.name),
            start_method="fork",
        )
        with forks_end_with_this_process():  # datatrove's workers and its manager do not look for that
            executor.run()


class _JobArray(SlurmPipelineExecutor):
    """datatrove's, without a further job that adds up statistics, and without a partition where none is given."""

    def launch_merge_stats(self) -> None:
        pass

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        return {name: value for name, value in super().get_sbatch_args(max_array).items() if value is not None}


def _submit(build: DividedBuild, logs: Path, options: SlurmOptions) -> list[str]:
    """Submit the stages that are not done, each to begin when the one before has ended well; returns the jobs' ids.

    Raises:
        LaunchError: Slurm refuses them.
    """
    jobs: list[str] = []
    last: _JobArray | None = None
    for stage in build.stages:
        last = _job_array(stage, logs / stage.name, options, last)
        try:
            with _outside_of_a_job():
                last.launch_job()
        except subprocess.CalledProcessError as error:
            submitted = f"; jobs {', '.join(jobs)} were submitted: scancel them" if jobs else ""
            raise LaunchError(f"sbatch refuses the stage {stage.name} (see above; {error}){submitted}") from None
        if last.job_id != -1:
            jobs.append(str(last.job_id))
            record_jobs(build.output, jobs)  # at once: no second build begins beside them, whatever happens next
    return jobs


def _job_array(stage: Stage, logs: Path, options: SlurmOptions, before: _JobArray | None) -> _JobArray:
    return _JobArray(
        pipeline=[stage],
        tasks=stage.tasks,
        time=options.time,
        partition=options.partition,
        cpus_per_task=stage.build.processes,
        mem_per_cpu_gb=options.memory_gib,
        job_name=f"spe-shards-{stage.name}",
        qos=None,
        env_command=_environment(),
        sbatch_args={"kill-on-invalid-dep": "yes", **options.sbatch},
        depends=before,
        logging_dir=str(logs),
    )


def _environment() -> str:
    """What gives a job's script the Python and the packages of this process."""
    paths = [os.path.dirname(sys.executable), os.environ.get("PATH", "")]
    # srun's tasks get what this shell exports, whatever sbatch was told to pass on.
    lines = [f"export PATH={shlex.quote(os.pathsep.join(paths))}", "export SLURM_EXPORT_ENV=ALL"]
    if os.environ.get("PYTHONPATH"):
        lines.append(f"export PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])}")
    return "; ".join(lines)


@contextmanager
def _outside_of_a_job() -> Iterator[None]:
    """Hide the variables of a job that this process itself may run in: they would reach the jobs that it submits."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(("SLURM_", "SBATCH_"))}
    kept = {"SLURM_CONF"}
    for name in hidden.keys() - kept:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _wait_for(jobs: Sequence[str], build: DividedBuild, logs: Path, say: Callable[..., None]) -> None:
    """Return when no job is left; each stage that is done meanwhile is shown."""
    waiting = list(build.stages)
    while True:
        left = active_jobs(jobs)
        while waiting and _done_tasks(logs, waiting[0]) == waiting[0].tasks:
            stage = waiting.pop(0)
            say(f"{stage.name}: {how_many(stage.tasks, 'task')} done", flush=True)
        if not left:
            return
        time.sleep(POLL_S)


def _done_tasks(logs: Path, stage: Stage) -> int:
    folder = logs / stage.name / "completions"
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _ended(build: DividedBuild, logs: Path, say: Callable[..., None]) -> Manifest:
    """Show and return the manifest.

    Raises:
        LaunchError: there is none; says which task failed.
    """
    if not (build.output / MANIFEST_NAME).is_file():
        failures = sorted(build.failures.glob("*.txt"))
        undone = next((stage for stage in build.stages if _done_tasks(logs, stage) < stage.tasks), build.stages[-1])
        why = failures[0].read_text(encoding="utf-8").strip() if failures else f"see {logs / undone.name}"
        done = f"{_done_tasks(logs, undone)} of {how_many(undone.tasks, 'task')}"
        raise LaunchError(
            f"the jobs have ended and {done} of the stage {undone.name} are done ({why}); the same command continues"
        )
    manifest = Manifest.load(build.output)
    say(closing_table(manifest), flush=True)
    for warning in warnings_of(manifest):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return manifest
