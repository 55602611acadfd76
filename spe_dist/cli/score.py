"""Score predictions: entity, relation and Ent+Rel precision, recall and F1, as in the paper.

    spe score --gold FILE --predictions FILE
    spe score --gold FILE --predictions FILE --baseline FILE      two systems, with a paired test
    spe score --gold FILE --predictions RUN_*/FILE --baseline BASELINE_*/FILE    the same with several seeds of each
    spe score --gold FILE --predictions FILE --symmetric SPOUSE,SIBLING
    spe score --gold FILE --predictions FILE --gold_entities      relations alone, between gold entities

All files may have any format that spe corpus knows, gold another one than predictions; they must hold the same
sentences. Documents are matched by their names where both have the same, else by order. No model takes part.

Entity: type and boundaries right. Relation: type, direction and the boundaries of both arguments. Ent+Rel: also the
types of both arguments. Duplicates count once. All gold counts in recall. A predicted relation counts where its
arguments are among the predicted entities. Relations have a direction, but for types named by --symmetric; then both
conventions are printed.

Intervals are percentile bootstraps over documents (over sentences where the format has no documents, or there is one
alone; --bootstrap 0 for none); the paired test is approximate randomisation over the same units with 10,000 draws.

Several files of predictions are runs of one system, one a seed, and several of the baseline those of the same seeds in
the same order. What is compared then is mean F1, by a bootstrap over seeds and documents (or sentences) at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from spe_dist.cli.exits import run_command
from spe_dist.cli.options.corpora import annotation_settings
from spe_dist.cli.options.parser import Parser
from spe_dist.cli.options.scoring import scoring_parser
from spe_dist.errors import ConfigError
from spe_dist.utils.wording import counted, how_many

if TYPE_CHECKING:  # scoring takes numpy, which --help does without
    from spe_dist.extraction.corpora.corpus import Corpus
    from spe_dist.extraction.scoring.counts import Name
    from spe_dist.extraction.scoring.scores import Scores
    from spe_dist.extraction.scoring.significance import Comparison
    from spe_dist.extraction.scoring.table import Intervals


def build_parser() -> Parser:
    """The options of `spe score`."""
    parser = scoring_parser(
        "spe score", "--gold FILE --predictions FILE.. [--baseline FILE..] [options]", __doc__, min_draws=0
    )
    parser.add_argument(
        "--predictions",
        required=True,
        nargs="+",
        metavar="FILE",
        help="the same sentences with a system's predictions; several files: those of several seeds",
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        metavar="FILE",
        help="another system's predictions, to test the difference; as many files",
    )
    parser.add_argument(
        "--gold_entities",
        action="store_true",
        help="score relations between gold entities, which the predictions must have (spe predict --entities given)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: fractions of 1 and counts, everything")
    parser.add_argument(
        "--by", action="store_true", help="also by number of entities and by sentence length (the paper's Figure 5)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is explained in `spe_dist.cli.exits`."""
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    options = build_parser().parse(argv)
    from spe_dist.extraction.formats import read_corpus
    from spe_dist.extraction.scoring.gold_entities import RELATION_METRICS, check_gold_entities
    from spe_dist.extraction.scoring.matching import METRICS, check_symmetric
    from spe_dist.extraction.scoring.scores import score
    from spe_dist.extraction.scoring.significance import DRAWS, TEST_DRAWS, compare, compare_runs, confidence_intervals

    if options.baseline and len(options.baseline) != len(options.predictions):
        raise ConfigError(
            f"--predictions has {how_many(len(options.predictions), 'file')} and --baseline {len(options.baseline)}; "
            "give both for the same seeds, in the same order"
        )
    if options.by and len(options.predictions) > 1:
        raise ConfigError("--by shows the groups of one file of predictions; leave it out, or score one run by itself")
    read = partial(read_corpus, settings=annotation_settings(options))
    gold = read(options.gold)
    systems = {
        name: [read(path, predictions=True) for path in getattr(options, name)] for name in ("predictions", "baseline")
    }
    corpora = [gold, *systems["predictions"], *systems["baseline"]]
    check_symmetric(options.symmetric, *corpora)
    if options.gold_entities:
        for corpus in corpora[1:]:
            check_gold_entities(gold, corpus)
    scores, of_baseline = (
        [score(gold, corpus, options.symmetric, options.gold_entities) for corpus in runs] for runs in systems.values()
    )
    metrics = RELATION_METRICS if options.gold_entities else METRICS
    files = {"gold": gold} | {
        name if len(runs) == 1 else f"{name} {number}": corpus
        for name, runs in systems.items()
        for number, corpus in enumerate(runs, start=1)
    }
    draws, seed = options.bootstrap, options.seed
    if len(scores) > 1:
        units, baseline_units = ([run.units for run in runs] for runs in (scores, of_baseline))
        tested = compare_runs(baseline_units, units, draws or TEST_DRAWS, seed) if of_baseline else None
        numbers = runs_to_json(files, scores, of_baseline, tested)
        text = runs_to_text(files, scores, of_baseline, tested, metrics)
    else:
        intervals = confidence_intervals(scores[0].units, draws, seed) if draws else None
        tested = compare(of_baseline[0].units, scores[0].units, draws or DRAWS, seed=seed) if of_baseline else None
        numbers = to_json(files, scores[0], intervals, tested)
        text = to_text(files, scores[0], intervals, tested, options.by, metrics)
    if options.json:
        text = json.dumps({**numbers, "gold_entities": options.gold_entities}, indent=2, ensure_ascii=False)
    print(text)


def to_text(
    files: Mapping[str, Corpus],
    scores: Scores,
    intervals: Intervals | None,
    comparisons: Mapping[Name, Comparison] | None,
    by_group: bool,
    metrics: Sequence[str],
) -> str:
    """The scores of one run, and how sure their difference from the baseline's is."""
    from spe_dist.extraction.scoring.table import comparison_table, scores_table

    tables = [
        scores_table(scores, by_group=by_group, intervals=intervals, metrics=metrics),
        f"95% intervals over {scores.units.description}" if intervals else "",
        f"Paired test, over the same units\n{comparison_table(comparisons)}" if comparisons else "",
    ]
    return _report(files, metrics, tables)


def runs_to_text(
    files: Mapping[str, Corpus],
    runs: Sequence[Scores],
    of_baseline: Sequence[Scores],
    comparisons: Mapping[Name, Comparison] | None,
    metrics: Sequence[str],
) -> str:
    """Means over the runs of one system or two, and how sure their difference is."""
    from spe_dist.extraction.scoring.table import comparison_table, runs_table

    tables = [
        f"predictions, mean of {len(runs)} runs; {runs[0].direction}\n{runs_table(runs, metrics)}",
        f"baseline, mean of {len(runs)} runs\n{runs_table(of_baseline, metrics)}" if of_baseline else "",
        f"Difference of the means; runs and {runs[0].units.description} drawn\n{comparison_table(comparisons)}"
        if comparisons
        else "",
    ]
    return _report(files, metrics, tables)


def _report(files: Mapping[str, Corpus], metrics: Sequence[str], tables: Sequence[str]) -> str:
    """The files, the tables, then what reading and scoring had to note."""
    from spe_dist.extraction.scoring.gold_entities import GOLD_ENTITIES, RELATION_METRICS

    heading = GOLD_ENTITIES if tuple(metrics) == RELATION_METRICS else ""
    named = "\n".join(f"{name:<14} {corpus.source} ({corpus.format})" for name, corpus in files.items())
    notes = "\n".join(
        f"note on {name}: {notice}" for name, corpus in files.items() for notice in counted(corpus.notices)
    )
    return "\n\n".join(part for part in (named, heading, *tables, notes) if part)


def runs_to_json(
    files: Mapping[str, Corpus],
    runs: Sequence[Scores],
    of_baseline: Sequence[Scores],
    comparisons: Mapping[Name, Comparison] | None,
) -> dict[str, Any]:
    """The scores of each run under "predictions" and "baseline", the files, and "comparison"."""
    numbers: dict[str, Any] = {
        "files": _described(files),
        "interval_units": runs[0].units.description,
        "predictions": [scores.to_json() for scores in runs],
        "baseline": [scores.to_json() for scores in of_baseline],
    }
    return numbers if comparisons is None else numbers | {"comparison": _tested(comparisons)}


def to_json(
    files: Mapping[str, Corpus],
    scores: Scores,
    intervals: Intervals | None,
    comparisons: Mapping[Name, Comparison] | None,
) -> dict[str, Any]:
    """`Scores.to_json()` with "f1_interval" beside each F1, the files, and "comparison" with the baseline."""
    numbers = scores.to_json()
    for (metric, kind), interval in (intervals or {}).items():
        counts = numbers[metric] if kind is None else numbers[f"{metric}_by_type"][kind]
        counts["f1_interval"] = list(interval)
    if comparisons is not None:
        numbers["comparison"] = _tested(comparisons)
    return {"files": _described(files), "interval_units": scores.units.description, **numbers}


def _described(files: Mapping[str, Corpus]) -> dict[str, Any]:
    return {
        name: {"file": corpus.source, "format": corpus.format, "notices": dict(corpus.notices)}
        for name, corpus in files.items()
    }


def _tested(comparisons: Mapping[Name, Comparison]) -> dict[str, Any]:
    tested: dict[str, Any] = {}
    for (metric, kind), comparison in comparisons.items():
        place = tested if kind is None else tested.setdefault(f"{metric}_by_type", {})
        place[metric if kind is None else kind] = comparison.to_json()
    return tested
