"""Which pieces of work the chosen rows need, and each one's command: see `pieces`."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spe_dist.config.deepspeed_files import find_deepspeed_config
from spe_dist.errors import ConfigError
from spe_dist.experiments.file import PLACEHOLDER, Experiment, Row, Start
from spe_dist.experiments.pieces import RESULT_FOLDER, Cell, Piece, Plan, cells_of
from spe_dist.experiments.settings import as_arguments, check_settings
from spe_dist.utils.run_files import MODEL_FOLDER
from spe_dist.utils.wording import nearest_or_all

EXPORTS = ("query", "key")
PARTS = ("train", "dev", "test")
PATH_SETTINGS = ("tokenizer", "deepspeed")


def make_plan(experiment: Experiment, only: Sequence[str] = (), lenient: bool = False) -> Plan:
    """The plan of what the chosen rows need.

    `only` names rows (key or label), corpora, tables, or patterns of piece ids such as `rows/spe/*`. Raises ConfigError
    for unknown names, circles and wrong settings anywhere in the file, and, unless `lenient`, for values that are
    needed and not given.
    """
    _Planner(experiment).make_all()  # a fault that no chosen row meets is one all the same
    planner = _Planner(experiment)
    for cell, seed in choose_runs(experiment, only):
        planner.plan.chosen.add(planner.finetune(cell, seed).id)
    for pattern in only:
        planner.make_matching(pattern)
    if planner.missing and not lenient:
        names = sorted(planner.missing)
        raise ConfigError(
            f"values that are needed and not given: {', '.join(names)}; give "
            + " ".join(f"--set {name}=..." for name in names)
            + ", or choose rows, corpora or tables that do without by --only"
        )
    return planner.plan


def choose_runs(experiment: Experiment, only: Sequence[str] = ()) -> Iterator[tuple[Cell, int]]:
    """The cells and seeds that `only` names, all where it is empty: seed after seed, so that all rows fill alike."""
    cells: dict[Cell, set[str]] = {}
    for key, table in experiment.tables.items():
        for cell in cells_of(table):
            cells.setdefault(cell, set()).update((cell.row, experiment.label(cell.row), table.corpus, key))
    known = {name for names in cells.values() for name in names}
    for word in only:
        if word not in known and "/" not in word:
            raise ConfigError(
                f"--only {word!r}: no row, corpus or table is called so{nearest_or_all(word, sorted(known))}"
            )
    for seed in experiment.seeds:
        for cell, names in cells.items():
            if not only or any(word in names or fnmatch.fnmatch(cell.piece_id(seed), word) for word in only):
                yield cell, seed


def output_folder(experiment: Experiment) -> Path:
    """Where the pieces of an experiment lie."""
    return _Planner(experiment).output


class _Planner:
    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.plan = Plan()
        self.missing: set[str] = set()
        self.checked: dict[str, dict[str, Any]] = {}
        self.way: list[str] = []  # the pieces that are being planned, each needed by the one before
        self.names: list[str] = []  # the values that are being replaced, each named by the one before
        self.output = Path(self.text(experiment.output, [])).absolute()
        self.makers: dict[str, Callable[[str], Piece]] = {}
        for section, maker in (("demo", self.demo), ("shards", self.shards), ("pretraining", self.pretraining)):
            self.makers |= {f"{section}/{key}": partial(maker, key) for key in getattr(experiment, section)}
        for key in experiment.pretraining:
            encoders = EXPORTS if self.has_contrast(key) else EXPORTS[:1]
            self.makers |= {f"exports/{key}-{encoder}": partial(self.export, key, encoder) for encoder in encoders}
        self.makers |= {f"distant/{key}": partial(self.distant, key) for key in experiment.distant}

    def make(self, piece_id: str) -> Piece:
        """The planned piece of an id of the file's sections. Raises ConfigError for a circle or an unknown id."""
        if piece_id in self.plan.pieces:
            return self.plan.pieces[piece_id]
        if piece_id in self.way:
            circle = " <- ".join([*self.way[self.way.index(piece_id) :], piece_id])
            raise ConfigError(f"circular dependency: {circle}; let one of them start from an encoder")
        if piece_id not in self.makers:
            raise ConfigError(f"{{{piece_id}}} names no piece of work{nearest_or_all(piece_id, self.makers)}")
        self.way.append(piece_id)
        piece = self.makers[piece_id](piece_id)
        self.way.pop()
        return piece

    def make_all(self) -> None:
        for piece_id in self.makers:
            self.make(piece_id)
        for cell, seed in choose_runs(self.experiment):
            self.finetune(cell, seed)

    def make_matching(self, pattern: str) -> None:
        """Plan the pre-trainings, exports and other shared pieces that a pattern of ids names."""
        matches = [piece_id for piece_id in self.makers if fnmatch.fnmatch(piece_id, pattern)]
        for piece_id in matches:
            self.plan.chosen.add(self.make(piece_id).id)
        if "/" in pattern and not matches and not any(fnmatch.fnmatch(i, pattern) for i in self.plan.pieces):
            raise ConfigError(f"--only {pattern!r}: no piece of work has such an id; --dry_run lists them")

    # What the text of the file stands for.

    def text(self, text: str, needs: list[str]) -> str:
        """`text` with its {names} replaced; pieces it names, as in {demo/small}, are planned and join `needs`."""

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if "/" in name:
                piece = self.make(name)
                needs.append(piece.id)
                return str(piece.result_folder)
            if name == "port":  # of a launcher: chosen when it starts
                return match[0]
            if name not in self.experiment.values:
                raise ConfigError(f"{text!r}: there is no value {name!r}{nearest_or_all(name, self.experiment.values)}")
            value = self.experiment.values[name]
            if value is None:
                self.missing.add(name)
                return match[0]
            if name in self.names:
                circle = " <- ".join([*self.names[self.names.index(name) :], name])
                raise ConfigError(f"values: circular dependency: {circle}; give one of them a value of its own")
            self.names.append(name)
            replaced = self.text(str(value), needs)
            self.names.pop()
            return replaced

        return PLACEHOLDER.sub(replace, text)

    def settings(
        self, kind: str, place: str, needs: list[str], layers: Sequence[Mapping[str, Any]], start: str = ""
    ) -> dict[str, Any]:
        """The layers as one, later ones winning, checked."""
        merged: dict[str, Any] = {}
        for layer in layers:
            merged |= layer
        filled = {name: self.text(value, needs) if isinstance(value, str) else value for name, value in merged.items()}
        key = json.dumps([kind, start, filled], default=str)
        if key not in self.checked:  # equal for all seeds of a cell
            self.checked[key] = check_settings(kind, filled, place, start)
        return dict(self.checked[key])

    def add(self, piece_id: str, kind: str, title: str, arguments: Iterable[str], **parts: Any) -> Piece:
        parts["needs"] = tuple(dict.fromkeys(parts.get("needs", ())))
        piece = Piece(piece_id, kind, title, self.result_folder(piece_id), tuple(arguments), **parts)
        self.plan.pieces[piece_id] = piece
        return piece

    def result_folder(self, piece_id: str) -> Path:
        return self.output / piece_id / RESULT_FOLDER

    # One method for each kind of piece; each plans what it needs first.

    def demo(self, key: str, piece_id: str) -> Piece:
        settings = dataclasses.asdict(self.experiment.demo[key])
        arguments = ("--output", str(self.result_folder(piece_id)), *as_arguments(settings))
        return self.add(piece_id, "demo", f"demo corpus {key}", arguments, settings=settings, inputs={})

    def shards(self, key: str, piece_id: str) -> Piece:
        entry, needs = self.experiment.shards[key], list[str]()
        files = [self.text(name, needs) for name in entry.input]
        layers = [self.experiment.settings.shards, entry.settings]
        settings = self.settings("shards", f"settings of shards {key}", needs, layers)
        arguments = ("--input", *files, "--output", str(self.result_folder(piece_id)), *as_arguments(settings))
        inputs = {f"input {number}": name for number, name in enumerate(files)} | _paths(settings)
        title = f"shards of {key}"
        return self.add(piece_id, "shards", title, arguments, settings=settings, inputs=inputs, needs=needs)

    def pretraining(self, key: str, piece_id: str) -> Piece:
        entry = self.experiment.pretraining[key]
        shards = self.make(f"shards/{entry.shards}")
        needs = [shards.id]
        start, inputs = self.start(entry, needs)
        layers = [self.experiment.settings.pretrain, entry.settings]
        settings = self.settings("pretrain", f"settings of pretraining {key}", needs, layers)
        output = str(self.result_folder(piece_id))
        where = ("--shards", str(shards.result_folder), "--encoder", start, "--output", output)
        return self.add(
            piece_id,
            "pretrain",
            f"pre-training {key}",
            (*where, *as_arguments(settings)),
            settings=settings,
            inputs=inputs | _paths(settings),
            needs=needs,
            launcher=self.text(self.experiment.launcher.pretrain, needs),
            extra=("--resume", "auto"),
        )

    def has_contrast(self, key: str) -> bool:
        """Whether a pre-training has the contrastive objective, and so a momentum encoder."""
        layers = [self.experiment.settings.pretrain, self.experiment.pretraining[key].settings]
        return str({**layers[0], **layers[1]}.get("cspo", True)).lower() != "false"

    def export(self, key: str, encoder: str, piece_id: str) -> Piece:
        run = self.make(f"pretraining/{key}")
        arguments = ("--encoder", encoder, str(run.result_folder), str(self.result_folder(piece_id)))
        title = f"export of {key} ({encoder} encoder)"
        settings = {"encoder": encoder}
        extra = ("--overwrite",)
        return self.add(piece_id, "export", title, arguments, settings=settings, inputs={}, needs=[run.id], extra=extra)

    def start(self, start: Start, needs: list[str]) -> tuple[str, dict[str, str]]:
        """What a training command is given as its start, and the same as an input where the user gave it."""
        if start.pretraining:
            if start.export == "key" and not self.has_contrast(start.pretraining):
                raise ConfigError(
                    f"pre-training {start.pretraining} has no momentum encoder to export, since cspo is false; use "
                    "export: query"
                )
            needs.append(self.make(f"exports/{start.pretraining}-{start.export}").id)
            return str(self.result_folder(needs[-1])), {}
        if start.distant:
            needs.append(self.make(f"distant/{start.distant}").id)
            return str(self.result_folder(needs[-1]) / MODEL_FOLDER), {}
        name = self.text(start.encoder, needs) if start.encoder else "none"
        return name, {"start": name}

    def distant(self, key: str, piece_id: str) -> Piece:
        entry = self.experiment.distant[key]
        return self.extraction(
            piece_id, f"distant training {key}", entry, Cell(entry.corpus, "", 100.0), entry.seed, [entry.settings]
        )

    def finetune(self, cell: Cell, seed: int) -> Piece:
        """The fine-tuning of a cell with a seed; it joins the cells."""
        piece_id = cell.piece_id(seed)
        self.plan.cells.setdefault(cell, {})[seed] = piece_id
        if piece_id in self.plan.pieces:
            return self.plan.pieces[piece_id]
        row: Row = self.experiment.rows[cell.row]
        share = f" {cell.share:g}%" if cell.share != 100 else ""
        corpus = self.experiment.corpora[cell.corpus].name or cell.corpus
        title = f"{self.experiment.label(cell.row)}, {corpus}{share}, seed {seed}"
        by_share = {float(key): value or {} for key, value in self.experiment.shares.items()}
        piece = self.extraction(piece_id, title, row, cell, seed, [by_share.get(cell.share, {}), row.settings])
        if self.experiment.keep_models and seed not in self.experiment.keep_models:
            piece = dataclasses.replace(piece, removes=piece.result_folder / MODEL_FOLDER)
            self.plan.pieces[piece_id] = piece
        return piece

    def extraction(
        self, piece_id: str, title: str, start: Start, cell: Cell, seed: int, layers: list[Mapping[str, Any]]
    ) -> Piece:
        """Joint extraction trained on a share of a corpus: a row's fine-tuning, or distant training."""
        corpus, needs = self.experiment.corpora[cell.corpus], list[str]()
        name, inputs = self.start(start, needs)
        files = {part: self.text(getattr(corpus, part), needs) for part in PARTS if getattr(corpus, part)}
        layers = [self.experiment.settings.finetune, corpus.settings, *layers]
        settings = self.settings("finetune", f"settings of {title}", needs, layers, name)
        settings |= {"seed": seed, "train_share": round(cell.share * corpus.share / 10_000, 6)}
        where = [part for option, file in files.items() for part in (f"--{option}", file)]
        where += ["--start", name, "--output", str(self.result_folder(piece_id))]
        return self.add(
            piece_id,
            "finetune",
            title,
            (*where, *as_arguments(settings)),
            settings=settings,
            inputs=files | inputs | _paths(settings),
            needs=needs,
            launcher=self.text(self.experiment.launcher.finetune, needs),
            share=cell.share,
            extra=("--resume", "auto"),
        )


def _paths(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings that name files or folders: where these exist, their content counts."""
    found = {name: str(settings[name]) for name in PATH_SETTINGS if settings.get(name) is not None}
    if "deepspeed" in found and not PLACEHOLDER.search(found["deepspeed"]):
        found["deepspeed"] = str(find_deepspeed_config(found["deepspeed"]))
    return found
