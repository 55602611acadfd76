"""The experiment file: corpora, starts, rows, seeds and tables, from YAML, strictly.

An unknown or missing key, a name that nothing bears, a key that stands twice and a circle are errors that name the
place and the nearest known word. Text may hold {name}, one of `values` (which --set replaces), and {section/key}, the
folder that another piece of work writes: {demo/KEY}, {shards/KEY}, {exports/KEY-query}.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spe_dist.config.shared import LARGEST_WHOLE
from spe_dist.config.yaml_file import fit, read_yaml
from spe_dist.errors import ConfigError
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.utils.wording import nearest_or_all

Settings = Mapping[str, Any]
PLACEHOLDER = re.compile(r"\{([\w./-]+)\}")


@dataclass(frozen=True)
class Launcher:
    """What stands before a command, such as `deepspeed --num_gpus 8 --master_port {port}`; empty: this Python."""

    pretrain: str = ""
    finetune: str = ""


@dataclass(frozen=True)
class CommonSettings:
    """Settings of all pieces of a kind; those nearer to a row win."""

    shards: Settings = field(default_factory=dict)
    pretrain: Settings = field(default_factory=dict)
    finetune: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class DemoCorpus:
    """A corpus of made-up sentences in the folder {demo/its key}."""

    sentences: int = 20_000
    seed: int = 0
    distant: int = 0  # sentences with distant labels beside it


@dataclass(frozen=True)
class ExtractionCorpus:
    """Files with entities and relations. `share`: per cent of train that count as all of it."""

    train: str
    dev: str
    test: str = ""
    name: str = ""
    share: float = 100.0
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class ShardsOf:
    """Text to be made into shards."""

    input: tuple[str, ...]
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """Where weights come from: at most one of the four; none of them is random weights."""

    encoder: str = ""  # name or folder of a BERT-family checkpoint, or an export of other runs
    pretraining: str = ""
    distant: str = ""
    export: Literal["query", "key"] = "query"  # of a pre-training: the trained or the momentum encoder


@dataclass(frozen=True)
class Pretraining(Start):
    """One pre-training run."""

    shards: str = ""
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Distant(Start):
    """Joint extraction trained on distantly labelled data, whose encoder is a start."""

    corpus: str = ""
    seed: int = 0
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Row(Start):
    """A row of the tables: a start, fine-tuned once for every corpus, training share and seed."""

    name: str = ""
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """One table. `baselines`: rows with which the others are compared by a paired test.

    `published` holds figures of a paper by row (or row@share), `literature` further rows by name.
    """

    corpus: str
    rows: tuple[str, ...]
    title: str = ""
    shares: tuple[float, ...] = (100.0,)
    baselines: tuple[str, ...] = ()
    metrics: Literal["f1", "prf"] = "f1"
    published: Mapping[str, Any] = field(default_factory=dict)
    literature: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A whole experiment file."""

    output: str
    seeds: tuple[int, ...]
    rows: Mapping[str, Row]
    tables: Mapping[str, Table]
    corpora: Mapping[str, ExtractionCorpus]
    title: str = ""
    jobs: int = 1
    keep_models: tuple[int, ...] = ()  # seeds whose fine-tuned models of rows are kept; none named: all
    values: Mapping[str, Any] = field(default_factory=dict)
    launcher: Launcher = field(default_factory=Launcher)
    settings: CommonSettings = field(default_factory=CommonSettings)
    shares: Mapping[str, Any] = field(default_factory=dict)  # settings of fine-tuning by training share
    demo: Mapping[str, DemoCorpus] = field(default_factory=dict)
    shards: Mapping[str, ShardsOf] = field(default_factory=dict)
    pretraining: Mapping[str, Pretraining] = field(default_factory=dict)
    distant: Mapping[str, Distant] = field(default_factory=dict)

    def label(self, row: str) -> str:
        return self.rows[row].name or row


def read_experiment(path: str | Path, given: Mapping[str, str] | None = None, seeds: Sequence[int] = ()) -> Experiment:
    """The checked experiment of a file, `given` values and `seeds`, if any, in place of its own. Raises ConfigError."""
    document = read_yaml(path, "experiment file", "check its name")
    experiment: Experiment = fit(document, Experiment, str(path))
    values = dict(experiment.values)
    for name, value in (given or {}).items():
        if name not in values:
            raise ConfigError(f"--set {name}=...: {path} has no such value{nearest_or_all(name, values)}")
        values[name] = value
    experiment = dataclasses.replace(experiment, values=values)
    _check(experiment, str(path))
    if seeds:
        _check_seeds(seeds, "--seeds")
        experiment = dataclasses.replace(experiment, seeds=tuple(seeds))
    return experiment


def _check(experiment: Experiment, path: str) -> None:
    """Names that refer to each other, and what has to be given."""
    _check_seeds(experiment.seeds, f"{path}: seeds")
    if experiment.jobs < 1:
        raise ConfigError(f"{path}: jobs={experiment.jobs}: at least 1 is needed")
    for seed in experiment.keep_models:
        _known(seed, experiment.seeds, f"{path}: keep_models")
    for share, settings in experiment.shares.items():
        _check_share(share, f"{path}: shares")
        if not isinstance(settings, dict | None):
            raise ConfigError(f"{path}: shares: {share}: {settings!r} is not a list of settings; write {{epochs: 50}}")
    for key, corpus in experiment.corpora.items():
        _check_share(corpus.share, f"{path}: corpora: {key}: share")
    for section in ("pretraining", "distant", "rows"):
        for key, start in getattr(experiment, section).items():
            _check_start(experiment, start, f"{path}: {section}: {key}")
    for key, pretraining in experiment.pretraining.items():
        _known(pretraining.shards, experiment.shards, f"{path}: pretraining: {key}: shards")
        if pretraining.distant:
            raise ConfigError(
                f"{path}: pretraining: {key}: distant is not a start for pre-training; use encoder or none"
            )
    for key, distant in experiment.distant.items():
        _known(distant.corpus, experiment.corpora, f"{path}: distant: {key}: corpus")
        _check_seeds([distant.seed], f"{path}: distant: {key}: seed")
    for key, table in experiment.tables.items():
        _check_table(experiment, table, f"{path}: tables: {key}")
    unused = set(experiment.rows).difference(*(table.rows for table in experiment.tables.values()))
    if unused:
        raise ConfigError(f"{path}: rows: {sorted(unused)[0]!r} stands in no table; add it to one or remove it")


def _check_seeds(seeds: Sequence[int], place: str) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{place}={list(seeds)}: give at least one, none twice")
    if min(seeds) < 0 or max(seeds) > LARGEST_WHOLE:
        raise ConfigError(f"{place}={list(seeds)}: seeds are whole numbers from 0 to {LARGEST_WHOLE:,}")


def _check_start(experiment: Experiment, start: Start, place: str) -> None:
    given = [name for name in ("encoder", "pretraining", "distant") if getattr(start, name)]
    if len(given) > 1:
        raise ConfigError(f"{place}: {' and '.join(given)} are both given; a start is one of them")
    if start.export == "key" and not start.pretraining:
        raise ConfigError(f"{place}: export: key is the momentum encoder of a pretraining; none is named")
    for section in ("pretraining", "distant"):
        if getattr(start, section):
            _known(getattr(start, section), getattr(experiment, section), f"{place}: {section}")


def _check_table(experiment: Experiment, table: Table, place: str) -> None:
    _known(table.corpus, experiment.corpora, f"{place}: corpus")
    if not experiment.corpora[table.corpus].test:
        raise ConfigError(f"{place}: corpus {table.corpus!r} has no test file, which a table reports; give one")
    if not table.rows or not table.shares:
        raise ConfigError(f"{place}: give at least one of rows and of shares")
    for row in table.rows:
        _known(row, experiment.rows, f"{place}: rows")
    for row in table.baselines:
        _known(row, table.rows, f"{place}: baselines")
    if len(set(table.rows)) < len(table.rows):
        raise ConfigError(f"{place}: rows: a row stands twice; remove one")
    for share in table.shares:
        _check_share(share, f"{place}: shares")
    for key, figures in table.published.items():
        row, _, named = key.partition("@")
        _known(row, table.rows, f"{place}: published")
        shares = [f"{share:g}" for share in table.shares]
        if named and named not in shares:
            raise ConfigError(
                f"{place}: published: {key}: the table has no share {named!r}; it has {', '.join(shares)}"
            )
        _check_figures(figures, f"{place}: published: {key}")
    for key, figures in table.literature.items():
        _check_figures(figures, f"{place}: literature: {key}")


def _check_figures(figures: Any, place: str) -> None:
    fits = isinstance(figures, list) and len(figures) == len(METRICS)
    if not fits or any(not isinstance(figure, int | float | None) for figure in figures):
        raise ConfigError(f"{place}: give three F1 figures as [entity, relation, ent_rel], null where there is none")


def _check_share(share: Any, place: str) -> None:
    try:
        fits = 0 < float(share) <= 100
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ConfigError(f"{place}: {share!r} is not a share in per cent; give more than 0 and at most 100")


def _known(name: str | int, known: Iterable[Any], place: str) -> None:
    if name == "":
        raise ConfigError(f"{place} is missing; choose one of {', '.join(known) or '(none is defined)'}")
    if name not in set(known):
        raise ConfigError(f"{place}: there is no {repr(name)[:100]}{nearest_or_all(name, known)}")
