"""The results of an experiment, printed and written to OUTPUT/tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spe_dist.errors import DataError
from spe_dist.experiments import differences as paired
from spe_dist.experiments.file import Experiment
from spe_dist.experiments.picture import draw_curves, draw_table
from spe_dist.experiments.pieces import cells_of
from spe_dist.experiments.plan import choose_runs, make_plan, output_folder
from spe_dist.experiments.record import Requests
from spe_dist.experiments.table import lay_out, markdown, read_scores, to_csv

FOLDER = "tables"


def write_report(experiment: Experiment, only: Sequence[str], split: str) -> list[str]:
    """Write all tables as Markdown, CSV and PNG, with tests of their differences; those with a chosen row are returned.

    The scores of dev go into a folder of their own: dev chooses, test reports.
    """
    plan = make_plan(experiment, lenient=True)
    output = output_folder(experiment)
    requests = Requests(plan, output, trusting=True)
    results = read_scores(plan, requests, split)
    differences: dict[str, list[paired.Difference]] = {}
    notes = []
    try:
        differences = paired.read_differences(experiment, plan, results, split)
    except DataError as error:
        notes.append(f"no paired tests of rows: {error}")
    folder = output / FOLDER if split == "test" else output / FOLDER / split
    folder.mkdir(parents=True, exist_ok=True)
    by_word = [{cell for cell, _ in choose_runs(experiment, [word])} for word in only if word not in experiment.tables]
    chosen = set().union(*by_word)
    printed, texts, pictures = [], [], list[Path]()
    for key, table in experiment.tables.items():
        layout = lay_out(experiment, key, results, split)
        tested = f"\n{paired.markdown(experiment, key, differences[key])}" if key in differences else ""
        texts.append(markdown(layout) + tested)
        pictures.append(folder / f"{key}.png")
        draw_table(layout, pictures[-1])
        curves = folder / f"{key}_curves.png"
        if draw_curves(experiment, key, results, split, curves):
            pictures.append(curves)
        if not only or key in only or not chosen.isdisjoint(cells_of(table)):
            printed.append(texts[-1])
    heading = f"# {experiment.title}\n\n" if experiment.title else ""
    (folder / "tables.md").write_text(heading + "\n".join(texts), encoding="utf-8")
    (folder / "tables.csv").write_text(to_csv(experiment, results, split), encoding="utf-8")
    names = ["tables.md", "tables.csv", *(path.name for path in pictures)]
    if differences:
        (folder / "differences.csv").write_text(paired.to_csv(experiment, differences, split), encoding="utf-8")
        names.insert(2, "differences.csv")
    return [*printed, *notes, f"{folder}: {', '.join(names)}"]
