"""What `spe predict` does: read, predict and write as one stream, and count."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch

from spe_dist.data.text.files import COMPRESSED_SUFFIXES, warn_of_left_out_files
from spe_dist.data.text.lines import STANDARD_INPUT, shown_name
from spe_dist.data.text.remote import local_inputs
from spe_dist.errors import ConfigError, DataError, SpeError
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.drawing.pages import predictions_page
from spe_dist.extraction.formats import read_corpus, write_corpus, written_format
from spe_dist.extraction.joint.thresholds import ARGMAX, chosen_thresholds
from spe_dist.extraction.predicting.extractor import Extractor
from spe_dist.extraction.predicting.inputs import find_corpora, find_inputs, read_corpora, read_inputs
from spe_dist.extraction.predicting.report import Report
from spe_dist.extraction.predicting.results import MinProbability, result_of
from spe_dist.extraction.predicting.text_input import InputSettings, Located, Place
from spe_dist.extraction.scoring.ceiling import ceiling_lines, gold_ceiling
from spe_dist.utils.files import atomic_file
from spe_dist.utils.memory import freeze_garbage_collector, tune_memory
from spe_dist.utils.wording import counted, how_many

PART_SUFFIX = ".part"
_TEXT_OPTIONS = {"input_format": "auto", "tokenised": False, "lines": "auto", "text_field": "text", "skip_bad": False}


def predict_files(options: argparse.Namespace) -> None:
    """Predict as the command line says. Raises SpeError, BrokenPipeError."""
    fetched = local_inputs(options.inputs, options.cache_dir, options.fetch_timeout_s, partial(_tell, options.quiet))
    options.inputs, options.urls = fetched.names, fetched.urls
    takes_corpora = options.format == "corpus" or options.entities == "given"
    find = find_corpora if takes_corpora else find_inputs
    files = find(options.inputs)  # what does not exist is said before the model is loaded
    _check_outputs(options, files)
    if not takes_corpora:
        warn_of_left_out_files(options.inputs)
    if options.threads:
        torch.set_num_threads(options.threads)
    tune_memory()
    extractor = Extractor.from_pretrained(
        options.model,
        options.device,
        batch_pieces=options.batch_pieces,
        bfloat16=options.bfloat16,
        language=options.language,
    )
    freeze_garbage_collector()
    stored = extractor.thresholds
    extractor.thresholds = chosen_thresholds(options.threshold_entities, options.threshold_relations, stored)
    limits = MinProbability.of(
        options.min_probability, options.min_probability_entities, options.min_probability_relations
    )
    report = Report(options.quiet, options.html_sentences if options.html else 0, options.entities == "given")
    if extractor.thresholds != ARGMAX:
        kept = " (those of the model folder)" if extractor.thresholds == stored else ""
        report.tell(f"thresholds: {extractor.thresholds}{kept}")
    predict = _predict_corpus if options.format == "corpus" else _predict_lines
    predict(options, extractor, limits, report)
    if options.html:
        _write_page(Path(options.html), _model_name(options.model), report)
    report.finish(extractor, limits)


def _tell(quiet: bool, message: str) -> None:
    if not quiet:
        print(message, file=sys.stderr, flush=True)


def _predict_lines(options: argparse.Namespace, extractor: Extractor, limits: MinProbability, report: Report) -> None:
    settings = InputSettings(
        options.input_format, options.tokenised, options.lines, options.text_field, options.skip_bad, extractor.language
    )
    failure: list[SpeError] = []

    def located() -> Iterator[Located]:
        """Up to the first fault, so that what stands before it is predicted and written."""
        try:
            if options.entities == "given":
                annotations = AnnotationSettings(options.cut_words, options.concept_pairs, extractor.language)
                yield from read_corpora(options.inputs, report.skips, report.tell, annotations)
            else:
                yield from read_inputs(options.inputs, settings, report.skips, report.tell)
        except SpeError as error:
            failure.append(error)

    with _opened(options.output, report) as file:
        for place, predicted in extractor.predict_tagged(
            located(),
            lambda place: (place.file, place.document),
            options.batch_size,
            progress=report.progress,
            given_entities=options.entities == "given",
        ):
            sentence = limits.apply(predicted)
            place = place._replace(file=options.urls.get(place.file, place.file))
            file.write(result_of(sentence, place.start, place).to_json().encode() + b"\n")
            report.add(sentence, _where(place))
        if failure:
            raise failure[0]


def _predict_corpus(options: argparse.Namespace, extractor: Extractor, limits: MinProbability, report: Report) -> None:
    """The input as a corpus, gold replaced by predictions, in its own format or the `written_format` of that."""
    [path] = find_corpora(options.inputs)
    corpus = read_corpus(
        path, settings=AnnotationSettings(options.cut_words, options.concept_pairs, extractor.language)
    )
    for notice in counted(corpus.notices):
        report.tell(f"{path}: {notice}")
    given = options.entities == "given"
    for line in ceiling_lines(gold_ceiling(corpus, extractor.settings["symmetric"], extractor.labels, given)):
        report.tell(f"{path}: {line}")
    tagged = ((number, sentence) for number, document in enumerate(corpus.documents) for sentence in document.sentences)
    found = []
    for number, predicted in extractor.predict_tagged(
        tagged,
        lambda number: number,
        options.batch_size,
        progress=report.progress,
        given_entities=given,
    ):
        sentence = limits.apply(predicted)
        found.append(sentence)
        report.add(sentence, sentence.origin or f"document {number}")
    written = written_format(corpus.format)
    if written != corpus.format:
        report.tell(f"{options.output} has the format {written}, in which predictions on {corpus.format} are written")
    losses = write_corpus(corpus.with_sentences(found), options.output, written)
    for loss in counted(losses):
        report.tell(f"not written, since the format {written} has no place for it: {loss}")


def _check_outputs(options: argparse.Namespace, files: Sequence[Path]) -> None:
    """ConfigError before the model is loaded for what could not be written afterwards."""
    if options.format == "corpus" and (len(files) != 1 or str(files[0]) == STANDARD_INPUT):
        raise ConfigError(f"--format corpus takes one input file, not {' '.join(options.inputs)}; name one corpus")
    if options.format == "corpus" and not options.output:
        raise ConfigError("--format corpus needs --output FILE: a corpus is written whole")
    if not options.output and sys.stdout is None:
        raise ConfigError("standard output is closed, so there is no place for predictions; give --output FILE")
    if options.entities == "given" and options.threshold_entities is not None:
        raise ConfigError("--threshold_entities chooses entities, and those of --entities given stay; leave it away")
    ignored = [f"--{name}" for name, default in _TEXT_OPTIONS.items() if getattr(options, name) != default]
    if ignored and (options.format == "corpus" or options.entities == "given"):
        reading = "--format corpus" if options.format == "corpus" else "--entities given"
        raise ConfigError(f"{reading} reads a corpus as it is, without {', '.join(ignored)}; leave that away")
    if options.format != "corpus" and options.output and Path(options.output).suffix in COMPRESSED_SUFFIXES:
        suffix = Path(options.output).suffix
        raise ConfigError(f"--output {options.output}: JSON lines are written plain; leave {suffix} away, or pipe")
    inputs = {file.resolve() for file in files if str(file) != STANDARD_INPUT}
    for name, value in (("--output", options.output), ("--html", options.html)):
        if value is None:
            continue
        if not value:
            raise ConfigError(f"{name} is empty; name a file, or leave the option away")
        path = Path(value)
        if path.resolve() in inputs:
            raise ConfigError(f"{name} {value} is an input; name another file")
        if path.is_dir():
            raise ConfigError(f"{name} {value} is a folder; name a file in it")
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"{name} {value}: its folder does not exist; create it")
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise ConfigError(f"{name} {value} may not be written; name another place")
    if options.output and options.html and Path(options.output).resolve() == Path(options.html).resolve():
        raise ConfigError(f"--output and --html are both {options.html}; name two files")


@contextlib.contextmanager
def _opened(output: str | None, report: Report) -> Iterator[BinaryIO]:
    """Standard output, or a file that gets its name when it is complete and nothing has failed."""
    path = Path(output or "standard output")
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        if output is None:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        else:
            with atomic_file(path, keep_as=part) as written, open(written, "wb") as file:
                yield file
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        if part.is_file():
            report.tell(f"what was predicted until now, {how_many(report.sentences, 'sentence')}, is in {part}")
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; free space or name another place") from error
    except SpeError as error:
        if not part.is_file() or not part.stat().st_size:
            part.unlink(missing_ok=True)
            raise
        raise DataError(f"{error} (what stands before it is predicted in {part})") from error


def _where(place: Place) -> str:
    return f"{shown_name(place.file)}, line {place.line}"


def _model_name(folder: str) -> str:
    """The end of a fine-tuned folder's path, without what is only true of this machine: "conll04/model"."""
    return "/".join(Path(folder).absolute().parts[-2:])


def _write_page(path: Path, model: str, report: Report) -> None:
    left_out = report.sentences - len(report.drawn)
    page = predictions_page(
        [sentence for _, sentence in report.drawn],
        places=[where for where, _ in report.drawn],
        model=model,
        totals=f"{how_many(report.sentences, 'sentence')}, {report.found()}.",
        left_out=f"Drawn are the first {len(report.drawn):,}, {left_out:,} left out." if left_out else "",
    )
    try:
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}; free space or name another place") from error
    if left_out:
        report.tell(f"{path} shows the first {how_many(len(report.drawn), 'sentence')}, {left_out:,} left out")
