"""The stages of `spe adapt`, which of them are done, and the estimate between them."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from spe_dist.cli.adapt.objectives import OBJECTIVES
from spe_dist.cli.options.training import read_options, training_parser
from spe_dist.config.pretraining import Config
from spe_dist.errors import ConfigError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.run_files import CURVES_FILE, METRICS_FILE
from spe_dist.utils.stages import Stage, StageError, run_stage
from spe_dist.utils.tables import aligned

PRESET = "adapt"
RECORD = "adapt.json"  # in the work folder: what was asked for, and what was measured
LOGS = "logs"
TRIAL_STEPS = 6
WARMING_UP = 2  # steps of the trial that are not counted
HEADS_FIRST_STEPS = 500  # in which the encoder stays as it is, at most
HEADS_FIRST_SHARE = 0.1  # of the run, at most
STAGES = 4


@dataclass(frozen=True)
class Adaptation:
    """What was asked for. `asked` decides whether a work folder is that of this command."""

    text: tuple[str, ...]
    encoder: str
    output: Path
    work: Path
    objectives: str
    passes: float
    ranks: int
    language: str | None
    estimate_only: bool
    settings: tuple[str, ...]

    @classmethod
    def of(cls, options: argparse.Namespace, settings: Sequence[str]) -> Adaptation:
        output = Path(options.output)
        work = Path(options.work or f"{str(output).rstrip('/')}-work")
        ranks = options.ranks or _gpus() or 1
        return cls(
            text=tuple(options.text),
            encoder=options.encoder,
            output=output,
            work=work,
            objectives=options.objectives,
            passes=options.passes,
            ranks=ranks,
            language=options.language,
            estimate_only=options.estimate,
            settings=tuple(settings),
        )

    @property
    def asked(self) -> dict[str, Any]:
        """What the finished stages depend on."""
        return {
            "text": list(self.text),
            "encoder": self.encoder,
            "objectives": self.objectives,
            "passes": self.passes,
            "language": self.language,
            "settings": list(self.settings),
        }

    @cached_property
    def config(self) -> Config:
        """The settings of the pre-training. Raises ConfigError."""
        parser = training_parser("spe pretrain", None, Config)
        own = ["--preset", PRESET, *OBJECTIVES[self.objectives].split(), "--epochs", str(self.passes)]
        return read_options(parser, [*own, *self.settings], Config).config

    def run(self) -> int:
        """All stages; the exit status. Raises ConfigError where a folder is in the way or a setting is wrong."""
        self.config.validate()
        if any(self.output.iterdir()) if self.output.is_dir() else self.output.exists():
            raise ConfigError(f"{self.output} is there already; give another --output, or remove it")
        self._claim()
        try:
            self._stage(1, self.shards())
            if self.speed() is None:
                shutil.rmtree(self.work / "trial", ignore_errors=True)
                self._stage(2, self.trial())
                self._note_speed()
            print("\n" + self.estimate())
            if self.estimate_only:
                return 0
            self._stage(3, self.pretraining())
            self._stage(4, self.export())
        except StageError as failed:
            print(f"error: {failed}", file=sys.stderr)
            return failed.status
        print("\n".join(self.closing_lines()))
        return 0

    def shards(self) -> Stage:
        parts: tuple[object, ...] = ("--output", self.work / "shards", "--tokenizer", self.encoder)
        parts += ("--language", self.language) if self.language else ()
        return Stage("shards", "Shards of the text", "spe shards make --input", more=[*self.text, *map(str, parts)])

    def trial(self) -> Stage:
        """A few steps with the encoder, whose speed is that of the training."""
        few = f"--steps {TRIAL_STEPS} --freeze_encoder_steps 0 --warmup_steps 1 --log_every_steps 1"
        few += " --evaluate_sentences 0 --checkpoint_every_minutes 0"
        return self._training("trial", "A few steps, to see how long it will take", last=few.split())

    def pretraining(self) -> Stage:
        steps = int(self._sentences_read() / self.config.train.global_batch_sentences)
        heads_first = min(HEADS_FIRST_STEPS, int(HEADS_FIRST_SHARE * steps))
        parts = ("--epochs", self.passes, "--freeze_encoder_steps", heads_first, "--resume auto")
        return self._training("run", "Pre-training", *parts)

    def export(self) -> Stage:
        paths = [str(self.work / "run"), str(self.output)]
        return Stage("export", "Export to plain PyTorch", "spe export", more=paths)

    def _training(self, folder: str, title: str, *parts: object, last: Sequence[str] = ()) -> Stage:
        """`parts` yield to the user's settings, `last` do not."""
        from spe_dist.distributed.ports import free_port

        launcher: tuple[object, ...] = ("spe pretrain",)
        if self.ranks > 1:
            launcher = ("deepspeed --num_gpus", self.ranks, "--master_port", free_port(), "--module spe_dist.pretrain")
            launcher += ("--deepspeed zero2",)
        paths = ["--encoder", self.encoder, "--shards", str(self.work / "shards"), "--output", str(self.work / folder)]
        preset = ("--preset", PRESET, OBJECTIVES[self.objectives])
        return Stage(folder, title, *launcher, *preset, *parts, more=[*paths, *self.settings, *last])

    def speed(self) -> float | None:
        """Sentences a second that were measured with as many ranks; None: not yet."""
        found = self._record().get("sentences_per_s", {}).get(str(self.ranks))
        return float(found) if found else None

    def _note_speed(self) -> None:
        from spe_dist.training.metrics import read_rows

        rows = read_rows(self.work / "trial" / METRICS_FILE, "train")[WARMING_UP:]
        record = self._record()
        record.setdefault("sentences_per_s", {})[str(self.ranks)] = median(row["sentences_per_s"] for row in rows)
        write_atomically(self.work / RECORD, json.dumps(record, indent=1) + "\n")
        shutil.rmtree(self.work / "trial", ignore_errors=True)

    def estimate(self) -> str:
        """How long the training takes, in a line or two."""
        from spe_dist.training.progress import duration

        speed, train = self.speed(), self.config.train
        assert speed is not None
        passes = "pass" if train.epochs == 1 else "passes"
        work = f"{train.epochs:g} {passes} over {self._sentences():,} sentences"
        if train.steps:
            work = f"{train.steps:,} steps of {train.global_batch_sentences:,} sentences"
        return (
            f"{work} at {speed:,.0f} a second: about {duration(self._sentences_read() / speed)} "
            f"of training on this machine. Ctrl-C stops it; the same command continues."
        )

    def _sentences_read(self) -> float:
        """How many the training reads, repeated ones included; steps and epochs among the settings decide."""
        train = self.config.train
        return train.steps * train.global_batch_sentences if train.steps else self._sentences() * train.epochs

    def _sentences(self) -> int:
        from spe_dist.data.shards.manifest import Manifest

        return Manifest.load(self.work / "shards").n_sentences("train")

    def closing_lines(self) -> list[str]:
        places = [
            (self.output, "the encoder, for spe finetune --start and transformers.AutoModel"),
            (self.work / "run" / CURVES_FILE, "losses and held-out figures"),
            (self.work, "shards, checkpoints and logs; may be removed"),
        ]
        return [
            "\nWhere it lies:",
            *aligned([(f"  {place}", what) for place, what in places], "<"),
            f"\nnext: spe finetune --start {shlex.quote(str(self.output))} --train FILE --dev FILE --test FILE "
            "--output RUN",
        ]

    def _stage(self, number: int, stage: Stage) -> None:
        run_stage(stage, number, STAGES, self.work / LOGS)

    def _claim(self) -> None:
        """Make the work folder, or take one of the same command. Raises ConfigError."""
        if (self.work / RECORD).is_file():
            earlier = self._record().get("asked", {})
            other = [name for name, value in self.asked.items() if earlier.get(name) != value]
            if other:
                raise ConfigError(
                    f"{self.work} is of another command ({', '.join(other)} differ); give another --work, or remove it"
                )
        elif self.work.exists() and (not self.work.is_dir() or any(self.work.iterdir())):
            raise ConfigError(f"{self.work} exists and is not of spe adapt; give another --work")
        else:
            (self.work / LOGS).mkdir(parents=True, exist_ok=True)
            write_atomically(self.work / RECORD, json.dumps({"asked": self.asked}, indent=1) + "\n")

    def _record(self) -> dict[str, Any]:
        return json.loads((self.work / RECORD).read_text(encoding="utf-8"))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
