"""What `spe predict` reports: progress, counts of what was found and left out, and why a model found nothing."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

from spe_dist.data.text.lines import Skips
from spe_dist.extraction.corpora.corpus import Sentence
from spe_dist.extraction.predicting.extractor import Extractor
from spe_dist.extraction.predicting.json_input import NO_TEXT
from spe_dist.extraction.predicting.results import NOTHING_FOUND, MinProbability
from spe_dist.utils.wording import counted, how_many, rate

PROGRESS_SECONDS = 10.0
MANY_LEFT_OUT = 0.2  # share of the lines above which even --quiet says so


@dataclass
class Report:
    """Counts what was found, keeps the first sentences for the page, and prints progress on stderr."""

    quiet: bool
    drawn_sentences: int
    given_entities: bool = False
    computed: int = 0  # sentences whose batch is done; they are written in order, some later
    sentences: int = 0
    words: int = 0
    entities: int = 0
    relations: int = 0
    skips: Skips = field(default_factory=Skips)
    drawn: list[tuple[str, Sentence]] = field(default_factory=list)
    start_s: float = field(default_factory=time.monotonic)
    reported_s: float = field(default_factory=time.monotonic)

    def add(self, sentence: Sentence, where: str) -> None:
        self.sentences += 1
        self.words += len(sentence.words)
        self.entities += len(sentence.entities)
        self.relations += len(sentence.relations)
        if len(self.drawn) < self.drawn_sentences:
            self.drawn.append((where, sentence))

    def progress(self, sentences: int) -> None:
        """Count the sentences of a batch; print every few seconds how many there are until now."""
        self.computed += sentences
        now = time.monotonic()
        if now - self.reported_s >= PROGRESS_SECONDS:
            self.reported_s = now
            speed = rate(self.computed, now - self.start_s)
            self.tell(f"{how_many(self.computed, 'sentence')}, {speed} sentences/s")

    def tell(self, message: str) -> None:
        if not self.quiet:
            print(message, file=sys.stderr, flush=True)

    def finish(self, extractor: Extractor, limits: MinProbability) -> None:
        seconds = time.monotonic() - self.start_s
        left_out = self.skips.bad_lines + self.skips.counts[NO_TEXT]
        for notice in counted(extractor.notices + self.skips.counts):
            self.tell(notice)
        if self.skips.first_bad:
            self.tell(f"first of what was left out: {self.skips.first_bad}")
        self.tell(
            f"{how_many(self.sentences, 'sentence')}, {how_many(self.words, 'word')}, {self.found()} in "
            f"{seconds:.1f} s: {rate(self.sentences, seconds)} sentences/s; "
            f"{how_many(left_out, 'line')} left out"
        )
        if left_out > MANY_LEFT_OUT * max(self.skips.lines, left_out):
            share = left_out / max(self.skips.lines, left_out)
            print(
                f"warning: {share:.0%} of {how_many(self.skips.lines, 'line')} could not be read and were left out "
                f"(first: {self.skips.first_bad}); convert the input to UTF-8, or name the field of the text with "
                "--text_field",
                file=sys.stderr,
            )
        if self.sentences and not self.entities and not self.given_entities:
            self.tell(f"{NOTHING_FOUND}: {_why_nothing(extractor, limits)}")

    def found(self) -> str:
        if self.given_entities:
            return (
                f"{how_many(self.entities, 'given entity', 'given entities')}, {how_many(self.relations, 'relation')}"
            )
        if not self.entities:
            return NOTHING_FOUND
        return f"{how_many(self.entities, 'entity', 'entities')}, {how_many(self.relations, 'relation')}"


def _why_nothing(extractor: Extractor, limits: MinProbability) -> str:
    if limits.entities:
        return f"no entity has a probability of {limits.entities:g} or more; lower --min_probability"
    if extractor.thresholds.entities:
        return f"no entity has a probability of {extractor.thresholds.entities:g} or more; lower --threshold_entities"
    doubt = extractor.doubt()
    if doubt:
        return f"the model {doubt}"
    return "the model marks no entity in this text; is it text of the kind that the model was trained on?"
