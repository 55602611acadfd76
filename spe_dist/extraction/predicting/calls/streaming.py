"""One result for each input of a call, put together from the sentences that were predicted."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from spe_dist.extraction.corpora import corpus
from spe_dist.extraction.predicting.calls.items import Item, read_given, read_item
from spe_dist.extraction.predicting.calls.options import Chosen
from spe_dist.extraction.predicting.results import Sentence, result_of


class Start(NamedTuple):
    """Where a sentence stands in memory."""

    document: int
    start: int  # its first character


class PredictTagged(Protocol):
    """Predicts sentences, each with its tag, in order."""

    def __call__(
        self, items: Iterable[tuple[Start, corpus.Sentence]], document_of: Callable[[Start], Hashable], /
    ) -> Iterator[tuple[Start, corpus.Sentence]]: ...


def results_of_inputs(
    inputs: Iterable[Item], chosen: Chosen, language: str, predict_tagged: PredictTagged, notices: Counter[str]
) -> Iterator[Any]:
    """A list of sentences for each text and a sentence for each list of words, in order, read as they are needed.

    `notices`: counts what reading left out.

    Raises:
        DataError: an input is none that the options allow.
    """
    waiting: deque[tuple[int, bool]] = deque()  # (sentences of an input, whether its result is a list)
    read = read_given if chosen.given_entities else read_item

    def feed() -> Iterator[tuple[Start, corpus.Sentence]]:
        for number, item in enumerate(inputs):
            sentences, is_list = read(item, number, language, notices)
            waiting.append((len(sentences), is_list))
            yield from ((Start(number, start), sentence) for start, sentence in sentences)

    done: list[Sentence] = []
    for (_, start), predicted in predict_tagged(feed(), lambda tag: tag.document):
        while waiting[0] == (0, True):
            waiting.popleft()
            yield []
        done.append(result_of(chosen.limits.apply(predicted), start))
        n_sentences, is_list = waiting[0]
        if len(done) == n_sentences:
            waiting.popleft()
            yield done if is_list else done[0]
            done = []
    yield from ([] for _ in waiting)
