"""The small runs that faults are put into: their data, settings and what an undisturbed one gives."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spe_dist.training.metrics import read_rows
from tests.faults.attempts import Attempt, FaultError, fork_ranks
from tests.faults.injection import Plan
from tests.faults.moments import MOMENTS, places
from tests.helpers.small_runs import MEASURED, NETWORK, PRETRAINING, command_line

PRETRAIN = {
    **PRETRAINING,
    "queue_keys": 24,
    "global_batch_sentences": 8,
    "micro_batch_sentences": 2,
    "steps": 8,
    "checkpoint_every_steps": 3,
    "evaluate_every_steps": 5,
    "evaluate_sentences": 16,
    "check_every_steps": 3,
    "log_every_steps": 1,
    "timeout_s": 600,
}
FINETUNE = {
    **NETWORK,
    "start": "none",
    "relation_size": 16,
    "batch_sentences": 8,
    "learning_rate": 5e-3,
    "head_learning_rate": 5e-3,
    "epochs": 4,
    "gold_epochs": 1,
    "checkpoint_every_epochs": 1,
    "keep_checkpoints": 3,
    "precision": "float32",
    "log_every_steps": 1,
    "timeout_s": 600,
}


@dataclass(frozen=True)
class Setup:
    """Which run: program, ranks, stage of ZeRO, further settings."""

    program: str = "pretrain"
    ranks: int = 2
    stage: int = 2
    given: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        more = "".join(f" {name}={value}" for name, value in self.given)
        return f"{self.program} {self.ranks} ranks ZeRO-{self.stage}{more}"


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: rows without what was measured, ids by rank and step, how often each place was reached."""

    rows: list[dict[str, Any]]
    ids: dict[int, dict[int, Any]]
    counts: dict[int, dict[str, int]]
    seconds: float
    step_s: float

    @property
    def batches(self) -> dict[int, list[int]]:
        """Sentences of all ranks, in rank order, by step."""
        steps = {step: [self.ids[rank][step]["ids"] for rank in sorted(self.ids)] for step in self.ids[0]}
        return {step: [i for ids in parts for i in ids] for step, parts in steps.items()}

    @property
    def steps(self) -> int:
        return max(row["step"] for row in self.rows)


@dataclass
class Runs:
    """Data of the runs and their references, made once in a folder."""

    folder: Path
    _references: dict[Setup, Reference] = field(default_factory=dict)

    def make_data(self) -> None:
        """Shards and a labelled corpus, unless they are there."""
        from spe_dist.data.build.make import make_shards
        from spe_dist.data.text.vocabulary import save_tokenizer, tokenizer_from_pieces
        from spe_dist.demo.sentences import write_demo_corpus

        if (self.folder / "complete").exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write_demo_corpus(self.folder, sentences=300, seed=0)
        make_shards(
            [str(self.folder / "text.txt")],
            str(self.folder / "shards"),
            tokenizer=None,
            train_vocab=300,
            words="spaces",
            processes=1,
            held_out=0.1,
            block_sentences=50,
            quiet=True,
        )
        sentences = json.loads((self.folder / "extraction" / "train.json").read_text())[:22]
        (self.folder / "train.json").write_text(json.dumps(sentences[:16]))
        (self.folder / "dev.json").write_text(json.dumps(sentences[16:]))
        words = sorted({word for sentence in sentences for word in sentence["tokens"]})
        tokenizer = tokenizer_from_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words], do_lower_case=False)
        save_tokenizer(tokenizer, self.folder / "tokenizer")
        for stage in range(4):
            settings = {"zero_optimization": {"stage": stage}}
            (self.folder / f"zero{stage}.json").write_text(json.dumps(settings))
        (self.folder / "complete").touch()

    def arguments(self, setup: Setup, output: Path) -> list[str]:
        """The run's command line."""
        if setup.program == "pretrain":
            settings = {**PRETRAIN, "shards": self.folder / "shards"}
        else:
            files = {name: self.folder / f"{name}.json" for name in ("train", "dev")}
            settings = {**FINETUNE, **files, "tokenizer": self.folder / "tokenizer"}
        stage = self.folder / f"zero{setup.stage}.json"
        return command_line({**settings, **dict(setup.given), "output": output, "deepspeed": stage})

    def reference(self, setup: Setup) -> Reference:
        """What the undisturbed run gives; it is made at the first call."""
        if setup not in self._references:
            folder = self.folder / "references" / setup.name.replace(" ", "_")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            output = folder / "run"
            plan = Plan(str(folder), str(output), counted=places(setup.program))
            attempt = fork_ranks(setup.program, self.arguments(setup, output), setup.ranks, folder, plan)
            try:
                statuses = attempt.wait(300)
            finally:
                attempt.end()
            if any(statuses.values()):
                raise FaultError(f"the undisturbed run fails: {statuses}\n{attempt.text()}")
            counts = {rank: lines[0] for rank, lines in attempt.notes("counts").items()}
            for part, moments in MOMENTS[setup.program].items():
                if not any(at in reached for at in moments for reached in counts.values()):
                    raise FaultError(f"{setup.name} never comes by {part}: {', '.join(moments)}")
            rows = comparable(output)
            step_s = sorted(row["step_s"] for row in read_rows(output / "metrics.jsonl", "train"))
            self._references[setup] = Reference(
                rows, trained_ids([attempt]), counts, attempt.ended - attempt.began, step_s[len(step_s) // 2]
            )
        return self._references[setup]


def comparable(output: Path) -> list[dict[str, Any]]:
    """Rows of a run without what was measured of its clock and machine."""
    rows = read_rows(output / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def whole_batches(attempts: list[Attempt], ranks: list[int]) -> dict[int, Any]:
    """Sentences of all ranks, in rank order, by step; `ranks`: how many each start had. FaultError as below.

    Steps that not all ranks came to are left out.
    """
    found: dict[int, Any] = {}
    for attempt, number in zip(attempts, ranks, strict=True):
        by_rank = trained_ids([attempt])
        for step in set.intersection(*(set(by_rank.get(rank, ())) for rank in range(number))):
            ids = [i for rank in range(number) for i in by_rank[rank][step]["ids"]]
            if found.setdefault(step, ids) != ids:
                raise FaultError(f"step {step} was trained on {ids} by {number} ranks, before on {found[step]}")
    return found


def trained_ids(attempts: list[Attempt]) -> dict[int, dict[int, Any]]:
    """Sentences by rank and step, over all starts. FaultError where a step got two different sets."""
    found: dict[int, dict[int, Any]] = {}
    for attempt in attempts:
        for rank, lines in attempt.notes("ids").items():
            steps = found.setdefault(rank, {})
            for line in lines:
                told = {name: value for name, value in line.items() if name != "time"}
                if steps.setdefault(line["step"], told) != told:
                    raise FaultError(
                        f"rank {rank} trained step {line['step']} on {told}, before on {steps[line['step']]}"
                    )
    return found
