"""Entities and relations of any number of sentences: streams, in batches of similar length, in the order given.

Some thousand sentences are held at a time; they are sorted by length, so that a batch is long sentences or short ones,
and given out in their own order. See `model` for what the probabilities say.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, repeat

import torch

from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import Entity, Labels, Relation, Sentence
from spe_dist.extraction.joint.batch import collate
from spe_dist.extraction.joint.examples import Example, ExampleMaker
from spe_dist.extraction.joint.model import BatchPrediction, JointModel
from spe_dist.extraction.joint.thresholds import ARGMAX, Thresholds
from spe_dist.extraction.predicting.given import (
    APART_GIVEN,
    OVERLAPPING_GIVEN,
    OVERLONG_GIVEN,
    certain,
    entity_of_span,
    with_given,
)
from spe_dist.extraction.predicting.workers import BatchWorkers
from spe_dist.model.devices import autocast

BATCH_PIECES = 4096
BUFFERED_SENTENCES = 2048

OVERLONG_SPANS = "predicted spans that no window holds, left out"
APART_PAIRS = "pairs of predicted entities that no window holds, left out"


@dataclass(frozen=True)
class _Chunk:
    """Sentences to be predicted, among others that are their context."""

    sentences: list[Sentence]
    documents: list[Hashable] | None
    first: int
    end: int


@dataclass(frozen=True)
class StreamSettings:
    """How a stream of sentences is predicted; only `given_entities` changes what is found.

    Attributes:
        batch_pieces: word pieces that are computed at a time at most, unless one sentence alone has more.
        batch_sentences: sentences of a batch at most; None: as many as the pieces allow.
        bfloat16: matrix products in bfloat16, which is fast where `fast_bfloat16` says so.
        buffered_sentences: sentences that are sorted by length together.
        workers: compute several batches at a time; None: one at a time, in this thread.
        given_entities: the entities of the sentences stay, and relations are those between them.
    """

    batch_pieces: int = BATCH_PIECES
    batch_sentences: int | None = None
    bfloat16: bool = False
    buffered_sentences: int = BUFFERED_SENTENCES
    workers: BatchWorkers | None = None
    given_entities: bool = False


DEFAULTS = StreamSettings()


def predict_sentences(
    model: JointModel,
    maker: ExampleMaker,
    sentences: Iterable[Sentence],
    settings: StreamSettings = DEFAULTS,
    *,
    thresholds: Thresholds = ARGMAX,
    documents: Iterable[Hashable] | None = None,
    notices: Counter[str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Sentence]:
    """Each sentence with what was predicted in place of its entities and relations, in the order of `sentences`.

    The model is in eval mode while this runs.

    Args:
        maker: one without labels, which may serve many calls.
        thresholds: the least probability of an entity and of a relation, in place of the most probable class.
        documents: the document of each sentence, which context does not leave; without it there is no context.
        notices: takes counts of what windows cut off.
        progress: is given the number of sentences of each batch that is done.

    Raises:
        ConfigError: the maker's windows are longer than the encoder reads.
    """
    each = predict_each(
        model, maker, sentences, (thresholds,), settings, documents=documents, notices=notices, progress=progress
    )
    return (found for (found,) in each)


def predict_each(
    model: JointModel,
    maker: ExampleMaker,
    sentences: Iterable[Sentence],
    choices: Sequence[Thresholds],
    settings: StreamSettings = DEFAULTS,
    *,
    documents: Iterable[Hashable] | None = None,
    notices: Counter[str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Sentence, ...]]:
    """`predict_sentences` for several thresholds at once, of which `choices` has one or more.

    Each sentence once for each of them, in their order. Counts of what windows cut off are those of the first.
    """
    longest = model.spe.encoder.config.max_position_embeddings
    if maker.max_pieces > longest:
        raise ConfigError(
            f"max_pieces={maker.max_pieces} is more than the encoder's {longest} positions; lower max_pieces"
        )
    counts: Counter[str] = Counter()
    context_words = maker.context_pieces if documents is not None else 0  # a word has a piece or more
    workers = settings.workers
    was_training = model.training
    model.eval()
    try:
        for chunk in _chunks(sentences, documents, settings.buffered_sentences, context_words):
            examples = maker.examples(chunk.sentences, counts, chunk.documents)[chunk.first : chunk.end]
            if settings.given_entities:
                examples = with_given(examples, chunk.sentences, model.labels, counts)
            pieces = settings.batch_pieces
            if workers is not None:
                pieces = workers.batch_pieces(pieces, sum(example.n_pieces for example in examples))
            batches = list(_batches(examples, pieces, settings.batch_sentences or len(examples)))
            predict = partial(_predict_batch, model, settings, choices, chunk.sentences)
            found: dict[int, tuple[Sentence, ...]] = {}
            for predicted, cut_off in map(predict, batches) if workers is None else workers.map(predict, batches):
                found |= predicted
                counts += cut_off
                progress(len(predicted))
            for number in range(chunk.first, chunk.end):
                yield found.pop(number)
    finally:
        model.train(was_training)
        if notices is not None:
            notices.update(+counts)


def _predict_batch(
    model: JointModel,
    settings: StreamSettings,
    choices: Sequence[Thresholds],
    sentences: Sequence[Sentence],
    examples: Sequence[Example],
) -> tuple[dict[int, tuple[Sentence, ...]], Counter[str]]:
    """(predictions by the number of their sentence, one for each choice; counts of what windows cut off)."""
    device, given = next(model.parameters()).device, settings.given_entities
    context = autocast(device, torch.bfloat16) if settings.bfloat16 else contextlib.nullcontext()
    with torch.inference_mode(), context:
        predictions = model.predict_each(collate(examples).to(device), choices, given)
    numbers = [example.sentence for example in examples]
    originals = [sentences[number] for number in numbers]
    predicted = [as_sentences(found, model.labels, originals, given) for found in predictions]
    prediction = predictions[0]
    overlong, apart = (OVERLONG_GIVEN, APART_GIVEN) if given else (OVERLONG_SPANS, APART_PAIRS)
    cut_off = Counter({overlong: prediction.overlong_spans, apart: prediction.apart_pairs})
    cut_off[OVERLAPPING_GIVEN] = prediction.overlapping_pairs
    return dict(zip(numbers, zip(*predicted, strict=True), strict=True)), cut_off


def as_sentences(
    prediction: BatchPrediction, labels: Labels, originals: Sequence[Sentence], given_entities: bool = False
) -> list[Sentence]:
    """The sentences of a batch with the predicted entities and relations; all else stays as it was.

    given_entities: the entities stay, in their order, as those between which the prediction has relations.
    """
    if given_entities:
        all_entities, entities = _given(prediction, originals)
    else:
        all_entities, entities = _found(prediction, labels, len(originals))
    relations: list[list[Relation]] = [[] for _ in originals]
    sentence_of = prediction.entity_sentence_E.tolist()
    for first, second, relation_class, probability in zip(
        prediction.relation_first_R.tolist(),
        prediction.relation_second_R.tolist(),
        prediction.relation_class_R.tolist(),
        prediction.relation_probability_R.tolist(),
        strict=True,
    ):
        number, second_is_head = divmod(relation_class - 1, 2)
        head, tail = (second, first) if second_is_head else (first, second)
        relation = Relation(labels.relation_types[number], all_entities[head], all_entities[tail], probability)
        relations[sentence_of[first]].append(relation)
    return [
        replace(original, entities=tuple(found), relations=tuple(related))
        for original, found, related in zip(originals, entities, relations, strict=True)
    ]


def _found(
    prediction: BatchPrediction, labels: Labels, n_sentences: int
) -> tuple[list[Entity], list[Sequence[Entity]]]:
    """(all entities, those of each sentence)."""
    entities: list[list[Entity]] = [[] for _ in range(n_sentences)]
    all_entities = []
    for sentence, start, end, entity_class, probability in zip(
        prediction.entity_sentence_E.tolist(),
        prediction.entity_start_E.tolist(),
        prediction.entity_end_E.tolist(),
        prediction.entity_class_E.tolist(),
        prediction.entity_probability_E.tolist(),
        strict=True,
    ):
        entity = Entity(start, end, labels.entity_types[entity_class - 1], probability=probability)
        entities[sentence].append(entity)
        all_entities.append(entity)
    return all_entities, list(entities)


def _given(prediction: BatchPrediction, originals: Sequence[Sentence]) -> tuple[list[Entity], list[Sequence[Entity]]]:
    """(the entities that take part in relations, as the prediction counts them; all those of each sentence)."""
    entities = [certain(original.entities) for original in originals]
    by_span = [entity_of_span(of_sentence) for of_sentence in entities]
    spans = zip(
        prediction.entity_sentence_E.tolist(),
        prediction.entity_start_E.tolist(),
        prediction.entity_end_E.tolist(),
        strict=True,
    )
    return [by_span[sentence][start, end] for sentence, start, end in spans], list(entities)


def _batches(examples: Sequence[Example], batch_pieces: int, batch_sentences: int) -> Iterator[list[Example]]:
    """Longest first, so that what does not fit into memory fails at once."""
    batch: list[Example] = []
    pieces = 0
    for example in sorted(examples, key=lambda example: -example.n_pieces):
        if batch and (pieces + example.n_pieces > batch_pieces or len(batch) == batch_sentences):
            yield batch
            batch, pieces = [], 0
        batch.append(example)
        pieces += example.n_pieces
    if batch:
        yield batch


def _chunks(
    sentences: Iterable[Sentence], documents: Iterable[Hashable] | None, size: int, context_words: int
) -> Iterator[_Chunk]:
    """`size` sentences at a time, among so many of their neighbours that these hold `context_words` words."""
    stream = zip(sentences, repeat(None) if documents is None else documents, strict=False)
    before: deque[tuple[Sentence, Hashable]] = deque()
    ahead: deque[tuple[Sentence, Hashable]] = deque()
    while True:
        chunk = [ahead.popleft() for _ in range(min(size, len(ahead)))]
        chunk += islice(stream, size - len(chunk))
        if not chunk:
            return
        while sum(len(sentence.words) for sentence, _ in ahead) < context_words:
            further = next(stream, None)
            if further is None:
                break
            ahead.append(further)
        whole = [*before, *chunk, *ahead]
        yield _Chunk(
            [sentence for sentence, _ in whole],
            None if documents is None else [document for _, document in whole],
            len(before),
            len(before) + len(chunk),
        )
        if context_words:
            before = deque(_last_words([*before, *chunk], context_words))


def _last_words(pairs: list[tuple[Sentence, Hashable]], n_words: int) -> list[tuple[Sentence, Hashable]]:
    """The last sentences that together have `n_words` words or more."""
    first = len(pairs)
    while first > 0 and n_words > 0:
        first -= 1
        n_words -= len(pairs[first][0].words)
    return pairs[first:]
