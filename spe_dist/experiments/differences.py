"""How sure the differences between rows are: each row of a table against the table's `baselines`.

What is compared is mean F1 over the seeds that both rows have finished, by a bootstrap over seeds and documents at once
(over sentences where a corpus has no documents; `significance.compare_runs`): seed i of both rows was trained on the
same sentences and is scored on the same ones. Each run has left what that needs in unit_counts.json: neither corpora
nor predictions have to be there any more.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from spe_dist.errors import DataError
from spe_dist.experiments.file import Experiment, Table
from spe_dist.experiments.pieces import Cell, Piece, Plan
from spe_dist.experiments.table import CellScores
from spe_dist.extraction.scoring.counts import UnitCounts
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.significance import Comparison, compare_runs
from spe_dist.extraction.scoring.table import METRIC_NAMES, p_text, points
from spe_dist.utils import tables
from spe_dist.utils.reading.json_file import read_object
from spe_dist.utils.run_files import UNIT_COUNTS_FILE

REMEDY = "remove the run's folder and run again"


@dataclass(frozen=True)
class Difference:
    """Row `cell` less row `baseline`, by metric, over `seeds`."""

    cell: Cell
    baseline: Cell
    seeds: tuple[int, ...]
    by_metric: Mapping[str, Comparison]


def read_differences(
    experiment: Experiment, plan: Plan, results: Mapping[Cell, CellScores], split: str
) -> dict[str, list[Difference]]:
    """By table, share after share; pairs of rows without a common finished seed are left out.

    Raises:
        DataError: the counts of a finished run are not there, or do not fit another's.
    """

    @cache
    def counts(cell: Cell, seed: int) -> UnitCounts:
        return _read(plan.pieces[plan.cells[cell][seed]], split)

    found: dict[str, list[Difference]] = {}
    for key, table in experiment.tables.items():
        for cell, baseline in _pairs(table):
            seeds = tuple(seed for seed in results[cell].by_seed if seed in results[baseline].by_seed)
            if seeds:
                ours, theirs = ([counts(of, seed) for seed in seeds] for of in (cell, baseline))
                compared = compare_runs(theirs, ours)
                by_metric = {metric: compared[metric, None] for metric in METRICS}
                found.setdefault(key, []).append(Difference(cell, baseline, seeds, by_metric))
    return found


def _pairs(table: Table) -> Iterator[tuple[Cell, Cell]]:
    """Each row with each baseline, no pair twice."""
    for share in table.shares:
        for number, baseline in enumerate(table.baselines):
            for row in table.rows:
                if row != baseline and row not in table.baselines[:number]:
                    yield Cell(table.corpus, row, share), Cell(table.corpus, baseline, share)


def _read(piece: Piece, split: str) -> UnitCounts:
    path = piece.result_folder / UNIT_COUNTS_FILE
    try:
        return UnitCounts.from_json(read_object(path, REMEDY).get(split), f"{path}, {split}")
    except FileNotFoundError:
        raise DataError(f"{piece.title}: its run has left no {path}; {REMEDY}") from None


def markdown(experiment: Experiment, key: str, differences: Iterable[Difference]) -> str:
    """A table's differences in points of F1, with interval and p-value."""
    rows = [["", "Less", "Seeds", *(f"{METRIC_NAMES[metric]} F1 (points)" for metric in METRICS)]]
    grouped = len(experiment.tables[key].shares) > 1
    for difference in differences:
        share = f", {difference.cell.share:g}%" if grouped else ""
        cells = []
        for metric in METRICS:
            c = difference.by_metric[metric]
            value, interval = points(c.difference, c.low, c.high)
            cells.append(f"{value} ({interval}), p {p_text(c.p_value)}")
        labels = [f"{experiment.label(difference.cell.row)}{share}", experiment.label(difference.baseline.row)]
        rows.append([*labels, str(len(difference.seeds)), *cells])
    return "\n".join(tables.markdown(rows, "<<>>")) + f"\n\n{CAPTION}\n"


CAPTION = (
    "Differences of mean F1 over the seeds that both rows have, with the 95% interval and the p-value of a bootstrap "
    "over seeds and documents, or sentences where a corpus has no documents (where there is one seed, of tests without "
    "seeds)."
)


def to_csv(experiment: Experiment, differences: Mapping[str, Iterable[Difference]], split: str) -> str:
    """All differences in per cent: a line for each table, share, pair of rows and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ["table", "corpus", "split", "train_share_percent", "row", "baseline", "seeds", "metric"]
    writer.writerow([*heads, "baseline_f1", "f1", "difference", "low", "high", "p_value"])
    for key, of_table in differences.items():
        for d in of_table:
            where = [
                key,
                d.cell.corpus,
                split,
                f"{d.cell.share:g}",
                d.cell.row,
                d.baseline.row,
                " ".join(map(str, d.seeds)),
            ]
            for metric, c in d.by_metric.items():
                figures = [f"{100 * value:.3f}" for value in (c.a, c.b, c.difference, c.low, c.high)]
                writer.writerow([*where, metric, *figures, f"{c.p_value:.4f}"])
    return text.getvalue()
