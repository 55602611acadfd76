"""How sure the differences between rows are: each row of a table against the table's `baselines`, by their predictions.

What is compared is mean F1 over the seeds that both rows have finished, by a bootstrap over seeds and sentences at once
(`significance.compare_runs`): seed i of both rows was trained on the same sentences and is scored on the same ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import load_yaml
from spe_dist.errors import DataError, SpeError
from spe_dist.experiments.file import Experiment, Table
from spe_dist.experiments.pieces import Cell, Piece, Plan
from spe_dist.experiments.table import CellScores
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora.corpus import Corpus
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.scores import Scores, score
from spe_dist.extraction.scoring.significance import Comparison, compare_runs
from spe_dist.extraction.scoring.table import METRIC_NAMES, p_text, points
from spe_dist.utils import tables
from spe_dist.utils.run_files import CONFIG_FILE

ANNOTATIONS = ("cut_words", "concept_pairs", "language")  # settings that say how a corpus becomes words


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
        DataError: the corpus or the predictions of a finished run are not there, or do not fit each other.
    """
    reader = _Reader(plan, split)
    found: dict[str, list[Difference]] = {}
    for key, table in experiment.tables.items():
        for cell, baseline in _pairs(table):
            seeds = tuple(seed for seed in results[cell].by_seed if seed in results[baseline].by_seed)
            if seeds:
                ours, theirs = ([reader.scores(of, seed) for seed in seeds] for of in (cell, baseline))
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


class _Reader:
    """Scores of runs from their predictions; corpora and runs that are met again are read once."""

    def __init__(self, plan: Plan, split: str):
        self.plan = plan
        self.split = split
        self.gold: dict[tuple[str, AnnotationSettings], Corpus] = {}
        self.by_run: dict[tuple[Cell, int], Scores] = {}

    def scores(self, cell: Cell, seed: int) -> Scores:
        if (cell, seed) not in self.by_run:
            self.by_run[cell, seed] = self._score(self.plan.pieces[self.plan.cells[cell][seed]])
        return self.by_run[cell, seed]

    def _score(self, piece: Piece) -> Scores:
        path = piece.inputs[self.split]
        try:
            settings = _annotations(piece)
            if (path, settings) not in self.gold:
                self.gold[path, settings] = read_corpus(path, settings=settings)
            predicted = read_corpus(
                piece.result_folder / f"predictions_{self.split}.json", predictions=True, settings=settings
            )
        except (OSError, SpeError) as error:
            raise DataError(f"{piece.title}: its difference to other rows needs its predictions: {error}") from None
        return score(self.gold[path, settings], predicted, piece.settings.get("symmetric", ()))


def _annotations(piece: Piece) -> AnnotationSettings:
    """How a run has read its corpora; its config.yaml has the language that it took from its start, too."""
    file = piece.result_folder / CONFIG_FILE
    values = load_yaml(file, FinetuneConfig) if file.is_file() else piece.settings
    return AnnotationSettings(**{name: values[name] for name in ANNOTATIONS if values.get(name)})


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
    "over seeds and sentences (where there is one seed, of tests over sentences alone)."
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
