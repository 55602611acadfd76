"""Score predictions: entity, relation and Ent+Rel precision, recall and F1, as in the paper.

    spe score --gold FILE --predictions FILE
    spe score --gold FILE --predictions FILE --baseline FILE      two systems, with a paired test
    spe score --gold FILE --predictions FILE --symmetric SPOUSE,SIBLING
    spe score --gold FILE --predictions FILE --gold_entities      relations alone, between gold entities

All files may have any format that spe corpus knows, gold another one than predictions; they must hold the same
sentences in the same order. No model takes part.

Entity: type and boundaries right. Relation: type, direction and the boundaries of both arguments. Ent+Rel: also the
types of both arguments. Duplicates count once. All gold counts in recall. A predicted relation counts where its
arguments are among the predicted entities. Relations have a direction, but for types named by --symmetric; then both
conventions are printed.

Intervals are percentile bootstraps over documents (over sentences where the format has no documents, or there is one
alone; --bootstrap 0 for none); the paired test is approximate randomisation over the same units with 10,000 draws.
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
from spe_dist.utils.wording import counted

if TYPE_CHECKING:  # scoring takes numpy, which --help does without
    from spe_dist.extraction.corpora.corpus import Corpus
    from spe_dist.extraction.scoring.counts import Name
    from spe_dist.extraction.scoring.scores import Scores
    from spe_dist.extraction.scoring.significance import Comparison
    from spe_dist.extraction.scoring.table import Intervals


def build_parser() -> Parser:
    """The options of `spe score`."""
    parser = scoring_parser(
        "spe score", "--gold FILE --predictions FILE [--baseline FILE] [options]", __doc__, min_draws=0
    )
    parser.add_argument(
        "--predictions", required=True, metavar="FILE", help="the same sentences with a system's predictions"
    )
    parser.add_argument("--baseline", metavar="FILE", help="another system's predictions, to test the difference")
    parser.add_argument(
        "--gold_entities",
        action="store_true",
        help="score relations between gold entities, which the predictions must have (spe predict --entities given)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: fractions of 1 and counts, everything")
    parser.add_argument(
        "--by", action="store_true", help="also by number of entities and by sentence length (Figure 5)"
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
    from spe_dist.extraction.scoring.significance import compare, confidence_intervals

    read = partial(read_corpus, settings=annotation_settings(options))
    gold = read(options.gold)
    predicted = read(options.predictions, predictions=True)
    baseline = read(options.baseline, predictions=True) if options.baseline else None
    check_symmetric(options.symmetric, *filter(None, (gold, predicted, baseline)))
    if options.gold_entities:
        for corpus in filter(None, (predicted, baseline)):
            check_gold_entities(gold, corpus)
    scores = score(gold, predicted, options.symmetric, options.gold_entities)
    intervals = confidence_intervals(scores, options.bootstrap, options.seed) if options.bootstrap else None
    comparisons = None
    if baseline is not None:
        of_baseline = score(gold, baseline, options.symmetric, options.gold_entities)
        comparisons = compare(of_baseline, scores, options.bootstrap or 1000, seed=options.seed)
    files = {"gold": gold, "predictions": predicted} | ({"baseline": baseline} if baseline else {})
    if options.json:
        numbers = {**to_json(files, scores, intervals, comparisons), "gold_entities": options.gold_entities}
        print(json.dumps(numbers, indent=2, ensure_ascii=False))
    else:
        metrics = RELATION_METRICS if options.gold_entities else METRICS
        print(to_text(files, scores, intervals, comparisons, options.by, metrics))


def to_text(
    files: Mapping[str, Corpus],
    scores: Scores,
    intervals: Intervals | None,
    comparisons: Mapping[Name, Comparison] | None,
    by_group: bool,
    metrics: Sequence[str],
) -> str:
    """What a reader wants to see: the files, the tables, then what reading and scoring had to note."""
    from spe_dist.extraction.scoring.gold_entities import GOLD_ENTITIES, RELATION_METRICS
    from spe_dist.extraction.scoring.table import comparison_table, scores_table

    notes = [f"note on {name}: {notice}" for name, corpus in files.items() for notice in counted(corpus.notices)]
    parts = [
        "\n".join(f"{name:<12} {corpus.source} ({corpus.format})" for name, corpus in files.items()),
        GOLD_ENTITIES if tuple(metrics) == RELATION_METRICS else "",
        scores_table(scores, by_group=by_group, intervals=intervals, metrics=metrics),
        f"95% intervals over {scores.units.description}" if intervals else "",
        f"Paired test, over the same units\n{comparison_table(comparisons)}" if comparisons else "",
        "\n".join(notes),
    ]
    return "\n\n".join(part for part in parts if part)


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
        tested: dict[str, Any] = {}
        numbers["comparison"] = tested
        for (metric, kind), comparison in comparisons.items():
            place = tested if kind is None else tested.setdefault(f"{metric}_by_type", {})
            place[metric if kind is None else kind] = comparison.to_json()
    described = {
        name: {"file": corpus.source, "format": corpus.format, "notices": dict(corpus.notices)}
        for name, corpus in files.items()
    }
    return {"files": described, "interval_units": scores.units.description, **numbers}
