"""The tables of a plan: mean and standard deviation over seeds, in the paper's layout, as Markdown and CSV.

F1 and, where a table asks for it, precision and recall: fractions of 1 in CellScores, per cent in tables, CSV and the
published figures of an experiment's file. The deviation is that of a sample (n - 1). The best mean of each column and
training share is bold, as in the paper, among rows with all seeds. Seeds without scores are named.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spe_dist.errors import DataError
from spe_dist.experiments.file import Experiment, Table
from spe_dist.experiments.pieces import Cell, Plan, cells_of
from spe_dist.experiments.record import Requests
from spe_dist.experiments.runner import piece_state
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.table import METRIC_NAMES
from spe_dist.utils import tables
from spe_dist.utils.reading.json_file import is_number, read_object
from spe_dist.utils.run_files import SCORES_FILE

FIGURES = ("precision", "recall", "f1")
FIGURE_NAMES = {"precision": "P", "recall": "R", "f1": "F1"}
NONE = "-"

Column = tuple[str, str]  # metric and figure
Fractions = Mapping[Column, float]  # of 1


@dataclass(frozen=True)
class CellScores:
    """The scores of a cell by seed, and the seeds that have none, with the reason."""

    by_seed: Mapping[int, Fractions]
    missing: Mapping[int, str]

    def mean(self, column: Column) -> float | None:
        values = [scores[column] for scores in self.by_seed.values()]
        return statistics.fmean(values) if values else None

    def deviation(self, column: Column) -> float | None:
        """Sample standard deviation; None for fewer than two seeds."""
        values = [scores[column] for scores in self.by_seed.values()]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Line:
    """One line of a printed table. `best`: the columns in which it has its group's best mean."""

    group: str
    label: str
    cells: tuple[str, ...]
    best: frozenset[int] = frozenset()
    published: str = ""
    seeds: str = ""
    first_of_group: bool = False


@dataclass(frozen=True)
class PrintedTable:
    """A table as lines of text, for Markdown and pictures alike."""

    title: str
    caption: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    grouped: bool
    has_published: bool
    has_missing: bool

    def header(self) -> list[str]:
        return [*[""] * self.grouped, "Model", *self.heads, *self._extra_heads()]

    def texts(self, line: Line, bold: str = "") -> list[str]:
        """The cells of a line; `bold` is put around the best ones."""
        figures = [f"{bold}{text}{bold}" if i in line.best else text for i, text in enumerate(line.cells)]
        extra = [line.published] * self.has_published + [line.seeds] * self.has_missing
        group = [line.group if line.first_of_group else ""] * self.grouped
        return [*group, line.label, *figures, *extra]

    def _extra_heads(self) -> list[str]:
        return ["Published F1 (%)"] * self.has_published + ["Seeds"] * self.has_missing


def read_scores(plan: Plan, requests: Requests, split: str) -> dict[Cell, CellScores]:
    """What the finished fine-tunings of each cell scored on `split` (dev or test).

    Raises:
        DataError: a finished run has no scores of the split.
    """
    results = {}
    for cell, pieces in plan.cells.items():
        by_seed: dict[int, Fractions] = {}
        missing: dict[int, str] = {}
        for seed, piece_id in pieces.items():
            piece = plan.pieces[piece_id]
            state, _ = piece_state(piece, requests)
            if state == "finished":
                by_seed[seed] = _read_file(piece.result_folder / SCORES_FILE, split)
            else:
                missing[seed] = {"changed": "made with other settings"}.get(state, state)
        results[cell] = CellScores(by_seed, missing)
    return results


def _read_file(path: Path, split: str) -> Fractions:
    try:
        scores = read_object(path, "remove its folder and run again")[split]
        found = {(metric, figure): scores[metric][figure] for metric in METRICS for figure in FIGURES}
    except (OSError, KeyError, TypeError) as error:
        raise DataError(f"{path} has no scores of {split} ({error!r}); remove its folder and run again") from None
    if not all(is_number(value, 0, 1) for value in found.values()):
        raise DataError(f"{path} has scores of {split} that are not shares; remove its folder and run again")
    return found


def lay_out(experiment: Experiment, key: str, results: Mapping[Cell, CellScores], split: str = "test") -> PrintedTable:
    """The table `key` as text."""
    table = experiment.tables[key]
    columns = columns_of(table)
    lines = [*_literature(table, columns)]
    for share in table.shares:
        cells = [cell for cell in cells_of(table) if cell.share == share]
        best = [_best([_full_mean(results[cell], column) for cell in cells]) for column in columns]
        for number, cell in enumerate(cells):
            lines.append(
                Line(
                    group=f"{share:g}%",
                    label=experiment.label(cell.row),
                    cells=tuple(_figure(results[cell], column) for column in columns),
                    best=frozenset(i for i, winners in enumerate(best) if number in winners),
                    published=_published(table, cell),
                    seeds=_seeds(results[cell]),
                    first_of_group=number == 0,
                )
            )
    corpus = experiment.corpora[table.corpus].name or table.corpus
    return PrintedTable(
        title=table.title or f"Results on the {corpus} {split} data",
        caption=_caption(experiment, table, split),
        heads=tuple(_head(column) for column in columns),
        lines=tuple(lines),
        grouped=len(table.shares) > 1,
        has_published=bool(table.published),
        has_missing=any(results[cell].missing for cell in cells_of(table)),
    )


def columns_of(table: Table) -> list[Column]:
    """(metric, figure) of each column, in order."""
    figures = ("f1",) if table.metrics == "f1" else FIGURES
    return [(metric, figure) for metric in METRICS for figure in figures]


def _head(column: Column) -> str:
    return f"{METRIC_NAMES[column[0]]} {FIGURE_NAMES[column[1]]} (%)"


def _full_mean(scores: CellScores, column: Column) -> float | None:
    """The mean where no seed is missing: what is compared."""
    return None if scores.missing else scores.mean(column)


def _best(means: Sequence[float | None]) -> set[int]:
    """Which have the highest mean as it is printed; none where there is nothing to compare."""
    printed = [None if mean is None else round(100 * mean, 1) for mean in means]
    known = [value for value in printed if value is not None]
    return (
        {i for i, value in enumerate(printed) if value is not None and value == max(known)} if len(known) > 1 else set()
    )


def _figure(scores: CellScores, column: Column) -> str:
    mean, deviation = scores.mean(column), scores.deviation(column)
    if mean is None:
        return NONE
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def _seeds(scores: CellScores) -> str:
    """How many seeds stand behind a line, and which are missing."""
    done, total = len(scores.by_seed), len(scores.by_seed) + len(scores.missing)
    if done == total:
        return str(total)
    reasons: dict[str, list[int]] = {}
    for seed, reason in scores.missing.items():
        reasons.setdefault(reason, []).append(seed)
    listed = "; ".join(
        f"{', '.join(map(str, seeds))} {_REASONS.get(reason, reason)}" for reason, seeds in reasons.items()
    )
    return f"{done} of {total}: {listed}"


_REASONS = {"new": "missing", "started": "unfinished", "stopped": "unfinished"}


def _published(table: Table, cell: Cell) -> str:
    figures = table.published.get(
        f"{cell.row}@{cell.share:g}", table.published.get(cell.row) if cell.share == 100 else None
    )
    return " / ".join(_plain(figure) for figure in figures) if figures else NONE


def _plain(figure: float | None) -> str:
    return NONE if figure is None else f"{figure:.1f}"


def _literature(table: Table, columns: Sequence[Column]) -> Iterator[Line]:
    for name, figures in table.literature.items():
        by_metric = dict(zip(METRICS, figures, strict=True))
        cells = tuple(_plain(by_metric[metric]) if figure == "f1" else NONE for metric, figure in columns)
        yield Line("", name, cells, published="" if table.published else NONE, seeds="literature")


def _caption(experiment: Experiment, table: Table, split: str) -> str:
    corpus = experiment.corpora[table.corpus].name or table.corpus
    count = len(experiment.seeds)
    seeds = f"mean ± standard deviation over {count} seeds" if count > 1 else "one seed"
    return f"On the {corpus} {split} data, {seeds}."


def markdown(layout: PrintedTable) -> str:
    """A Markdown table with aligned columns: text to the left, figures to the right."""
    rows = [layout.header(), *(layout.texts(line, bold="**") for line in layout.lines)]
    columns = "<" * (1 + layout.grouped) + ">" * (len(layout.heads) + layout.has_published) + "<" * layout.has_missing
    body = "\n".join(tables.markdown(rows, columns))
    return f"### {layout.title}\n\n{body}\n\n{layout.caption}\n"


def to_csv(experiment: Experiment, results: Mapping[Cell, CellScores], split: str) -> str:
    """All figures of all tables: a line for each row and share of a table, with counts of seeds."""
    columns = [(metric, figure) for metric in METRICS for figure in FIGURES]
    heads = ["table", "corpus", "split", "train_share_percent", "row", "model", "seeds", "missing_seeds"]
    heads += [f"{metric}_{figure}_{part}" for metric, figure in columns for part in ("mean", "sd")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for key, table in experiment.tables.items():
        for cell in cells_of(table):
            scores = results[cell]
            figures = [part for column in columns for part in (scores.mean(column), scores.deviation(column))]
            seeds = [" ".join(map(str, sorted(part))) for part in (scores.by_seed, scores.missing)]
            writer.writerow(
                [key, cell.corpus, split, f"{cell.share:g}", cell.row, experiment.label(cell.row), *seeds]
                + ["" if figure is None else f"{100 * figure:.3f}" for figure in figures]
            )
    return text.getvalue()
