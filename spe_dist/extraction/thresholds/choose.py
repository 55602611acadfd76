"""What `spe thresholds` does: predict dev with low thresholds, score every higher one, name and keep the best."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from spe_dist.data.text.languages import AUTO
from spe_dist.errors import ConfigError
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora.corpus import Corpus
from spe_dist.extraction.corpora.known import split_names
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.joint.card import SCORES
from spe_dist.extraction.joint.folder import is_extractor, keep_thresholds
from spe_dist.extraction.joint.thresholds import ARGMAX, Thresholds
from spe_dist.extraction.predicting.extractor import Extractor
from spe_dist.extraction.predicting.results import MinProbability
from spe_dist.extraction.scoring.matching import check_symmetric
from spe_dist.extraction.scoring.scores import Scores, score
from spe_dist.extraction.scoring.significance import compare
from spe_dist.extraction.scoring.table import METRIC_NAMES, comparison_table, percent
from spe_dist.extraction.thresholds.curves import GRID, Curves, threshold_curves
from spe_dist.utils.files import shared_name, write_atomically
from spe_dist.utils.tables import aligned

TABLE_FILE, PICTURE_FILE = "thresholds.csv", "thresholds.png"
SHOWN = 5  # per cent between the rows that are printed


def choose_thresholds(options: argparse.Namespace) -> Iterator[str]:
    """Do as the command line says, and give what is to be printed, part by part. Raises SpeError."""
    _check(options)
    extractor = Extractor.from_pretrained(options.model, options.device, batch_pieces=options.batch_pieces)
    language = extractor.language if options.language == AUTO else options.language
    settings = AnnotationSettings(options.cut_words, options.concept_pairs, language)
    dev = read_corpus(options.dev, settings=settings)
    test = read_corpus(options.test, settings=settings) if options.test else None
    _check_is_no_test(extractor, dev)
    symmetric = _symmetric(options, extractor)
    check_symmetric(symmetric, *filter(None, (dev, test)))
    argmax, low = extractor.predict_corpus_each(dev, (ARGMAX, Thresholds(GRID[0], GRID[0])))
    curves = threshold_curves(dev, low, symmetric)
    chosen = Thresholds(curves.best_entities, curves.best_relations)
    kept = low.with_sentences(map(MinProbability(curves.best_entities, curves.best_relations).apply, low.sentences))
    before, after = score(dev, argmax, symmetric), score(dev, kept, symmetric)
    yield f"{dev.source}, {dev.n_sentences:,} sentences"
    yield from _tables(curves, before)
    yield f"best F1: --threshold_entities {chosen.entities:g} --threshold_relations {chosen.relations:g}"
    tested = compare(before.units, after.units, seed=options.seed)
    yield "\n" + comparison_table(tested, ("argmax", "thresholds"), by_type=False)
    if test is not None:
        predicted = extractor.predict_corpus_each(test, (ARGMAX, chosen))
        before_test, after_test = (score(test, found, symmetric) for found in predicted)
        yield f"\n{test.source}, {test.n_sentences:,} sentences, which chose nothing"
        tested = compare(before_test.units, after_test.units, seed=options.seed)
        yield comparison_table(tested, ("argmax", "thresholds"), by_type=False)
    if options.output:
        yield "\n" + _write(Path(options.output), curves, before)
    if options.keep:
        keep_thresholds(Path(options.model), chosen, shared_name(dev.source))
        yield f"kept in {options.model}: predictions that name no threshold take these (argmax takes none)"


def _check(options: argparse.Namespace) -> None:
    """ConfigError before the model is loaded."""
    if options.keep and not is_extractor(options.model):
        raise ConfigError(
            f"--keep changes a folder, and {options.model} is not a fine-tuned one here; copy it, or leave --keep"
        )
    if options.test and Path(options.test).resolve() == Path(options.dev).resolve():
        raise ConfigError(f"--test {options.test} is DEV itself; give the part that chooses and another one")
    names = split_names(options.dev)
    if names == ("test",):
        raise ConfigError(
            f"DEV={options.dev} is a test part by its name, and thresholds chosen on it would make its scores "
            "worthless; choose on dev, and give this file as --test"
        )


def _check_is_no_test(extractor: Extractor, dev: Corpus) -> None:
    """ConfigError where dev is what the model was tested on when its training ended."""
    scored = extractor.facts.get(SCORES, {})
    name = shared_name(dev.source)
    if scored.get("test", {}).get("corpus") == name != scored.get("dev", {}).get("corpus"):
        raise ConfigError(
            f"DEV={dev.source} has the name of what this model was tested on; choose on dev, and give it as --test"
        )


def _symmetric(options: argparse.Namespace, extractor: Extractor) -> list[str]:
    if options.symmetric is None:
        return list(extractor.settings["symmetric"])
    return [name.strip() for name in options.symmetric.split(",") if name.strip()]


def _tables(curves: Curves, argmax: Scores) -> Iterator[str]:
    numbers = ("precision", "recall", "F1")
    rows = [["entities from", *numbers, "predicted"]]
    shown = {round(100 * x) for x in (curves.best_entities,)} | set(range(SHOWN, 100, SHOWN))
    counts = argmax.entity
    rows.append(["argmax", *map(percent, (counts.precision, counts.recall, counts.f1)), f"{counts.predicted:,}"])
    for point in curves.entities:
        if round(100 * point.threshold) in shown:
            c, mark = point.entity, " *" if point.threshold == curves.best_entities else ""
            cells = [percent(c.precision), percent(c.recall), percent(c.f1), f"{c.predicted:,}"]
            rows.append([f"{point.threshold:.2f}{mark}", *cells])
    yield "\n" + "\n".join(aligned(rows))
    named = [f"{METRIC_NAMES[metric]} {number}" for metric in ("relation", "ent_rel") for number in numbers]
    rows = [["relations from", *named, "predicted"]]
    cells = [percent(x) for c in (argmax.relation, argmax.ent_rel) for x in (c.precision, c.recall, c.f1)]
    rows.append(["argmax", *cells, f"{argmax.relation.predicted:,}"])
    shown = {round(100 * curves.best_relations)} | set(range(SHOWN, 100, SHOWN))
    for relation_point in curves.relations:
        if round(100 * relation_point.threshold) in shown:
            both = (relation_point.relation, relation_point.ent_rel)
            mark = " *" if relation_point.threshold == curves.best_relations else ""
            cells = [percent(x) for c in both for x in (c.precision, c.recall, c.f1)]
            rows.append([f"{relation_point.threshold:.2f}{mark}", *cells, f"{relation_point.relation.predicted:,}"])
    yield f"\nbetween entities from {curves.best_entities:.2f}, but argmax\n" + "\n".join(aligned(rows))
    rows = [["words of the entity", "marked", "mean probability", "right"]]
    rows += [[r.words, f"{r.predicted:,}", percent(r.probability), percent(r.right)] for r in curves.by_length]
    yield f"\nall entities from {GRID[0]:.2f}, by length\n" + "\n".join(aligned(rows)) + "\n"


def _write(folder: Path, curves: Curves, argmax: Scores) -> str:
    """The table of all points and the picture; says which. Raises ConfigError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["of", "threshold", "metric", "precision", "recall", "f1", "right", "predicted", "gold"])
    for entity_point in curves.entities:
        c = entity_point.entity
        row = [f"{c.precision:.4f}", f"{c.recall:.4f}", f"{c.f1:.4f}", c.tp, c.predicted, c.gold]
        writer.writerow(["entities", entity_point.threshold, "entity", *row])
    for point in curves.relations:
        for metric in ("relation", "ent_rel"):
            c = getattr(point, metric)
            row = [f"{c.precision:.4f}", f"{c.recall:.4f}", f"{c.f1:.4f}", c.tp, c.predicted, c.gold]
            writer.writerow(["relations", point.threshold, metric, *row])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TABLE_FILE, text.getvalue())
        written = [str(folder / TABLE_FILE)]
        try:
            from spe_dist.extraction.thresholds.picture import draw_thresholds

            draw_thresholds(curves, argmax, folder / PICTURE_FILE)
            written.append(str(folder / PICTURE_FILE))
        except ImportError:
            written.append("no picture, which needs matplotlib: pip install 'spe-dist[train]'")
    except OSError as error:
        raise ConfigError(f"--output {folder} cannot be written ({error.strerror}); give another place") from error
    return f"written: {', '.join(written)}"
