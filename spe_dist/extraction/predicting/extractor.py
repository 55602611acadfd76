"""A fine-tuned model for people who have text, in plain PyTorch.

    from spe_dist import Extractor
    extractor = Extractor.from_pretrained("runs/conll04/model")
    for sentence in extractor.predict("John Smith works for IBM in Boston. He likes it."):
        print(sentence)

prints the text with what was found in it:

    John Smith [Peop 0.98] works for IBM [Org 0.97] in Boston [Loc 0.99].
      John Smith --Work_For--> IBM, 0.95
    He likes it. (nothing found)
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack, cast, overload

import torch

from spe_dist.data.text.lines import Skips, encodable
from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.corpora import corpus
from spe_dist.extraction.corpora.corpus import Corpus
from spe_dist.extraction.joint.card import SCORES
from spe_dist.extraction.joint.examples import ExampleMaker
from spe_dist.extraction.joint.folder import LoadedExtractor, load_extractor
from spe_dist.extraction.predicting.device import choose_device, fast_bfloat16
from spe_dist.extraction.predicting.inputs import read_inputs
from spe_dist.extraction.predicting.json_input import place_words
from spe_dist.extraction.predicting.results import MinProbability, Sentence, result_of
from spe_dist.extraction.predicting.stream import BATCH_PIECES, predict_sentences
from spe_dist.extraction.predicting.text_input import InputSettings, sentences_of_text
from spe_dist.extraction.predicting.workers import BatchWorkers
from spe_dist.model.prepacked import prepack
from spe_dist.utils.wording import how_many

Tag = TypeVar("Tag")
Item = str | Sequence[str]


class PredictOptions(TypedDict, total=False):
    """What can be chosen for each call, see `Extractor.predict`."""

    batch_size: int | None
    min_probability: float
    min_probability_entities: float | None
    min_probability_relations: float | None


class Extractor:
    """Finds entities and relations in text.

    On a CPU several batches are computed at a time, one by each of torch's threads (`torch.set_num_threads`), so that
    other processes on the machine slow prediction down by what they take and no more. Probabilities depend in their
    last digits on which sentences share a batch.

    Attributes:
        labels: the types of entities and relations that it knows.
        notices: counts of what the model could not read whole, such as sentences read in windows.
        device: where the model is.
    """

    def __init__(
        self,
        loaded: LoadedExtractor,
        *,
        batch_pieces: int = BATCH_PIECES,
        bfloat16: bool | None = None,
        name: str = "",
    ) -> None:
        """Args as in `from_pretrained`; `name` is shown where the extractor is printed."""
        if batch_pieces < 1:
            raise ConfigError(f"batch_pieces={batch_pieces} must be 1 or more")
        self.model, self.tokenizer, self.labels = loaded.model, loaded.tokenizer, loaded.labels
        self.settings, self.facts, self.name = loaded.settings, loaded.facts, name
        self.maker = ExampleMaker(self.tokenizer, None, self.settings["max_pieces"], self.settings["context_pieces"])
        self.batch_pieces = batch_pieces
        self.bfloat16 = fast_bfloat16(self.device) if bfloat16 is None else bfloat16
        if self.bfloat16:
            prepack(self.model.spe.encoder.to(torch.bfloat16))
        self.notices: Counter[str] = Counter()
        self._workers: BatchWorkers | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        *,
        batch_pieces: int = BATCH_PIECES,
        bfloat16: bool | None = None,
    ) -> Extractor:
        """The model of a fine-tuned folder (OUTPUT/model of `spe finetune`).

        Args:
            folder: its path.
            device: "cpu", "cuda" or "cuda:N"; None: the GPU where there is one.
            batch_pieces: word pieces that are computed at a time; this bounds memory.
            bfloat16: matrix products in bfloat16, and the encoder's weights and sums too; None: where the device is
                fast at it.

        Raises:
            CheckpointError: the folder is no fine-tuned model, or is damaged.
            ConfigError: the device is unknown, or torch does not see it.
        """
        loaded = load_extractor(folder, choose_device(device))
        name = "/".join(Path(folder).absolute().parts[-2:])
        return cls(loaded, batch_pieces=batch_pieces, bfloat16=bfloat16, name=name)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def __repr__(self) -> str:
        entities, relations = self.labels.entity_types, self.labels.relation_types
        parts = [
            f"{how_many(len(entities), 'entity type')} ({', '.join(entities) or 'none'})",
            f"{how_many(len(relations), 'relation type')} ({', '.join(relations) or 'none'})",
            f"{self.device}, {'bfloat16' if self.bfloat16 else 'float32'}",
        ]
        doubt = self.doubt()
        return f"Extractor({self.name}: {'; '.join([*parts, doubt] if doubt else parts)})"

    def doubt(self) -> str | None:
        """That this model got nothing right when it was scored after its training, in words; None where it did."""
        for scores in self.facts.get(SCORES, {}).values():
            for kind, types in (("entity", self.labels.entity_types), ("relation", self.labels.relation_types)):
                if types and scores.get(kind) == 0:
                    return f"got no {kind} of {scores['corpus']} right; train it longer, or on more sentences"
        return None

    @overload
    def predict(self, inputs: str, **options: Unpack[PredictOptions]) -> list[Sentence]: ...
    @overload
    def predict(
        self, inputs: list[str] | tuple[str, ...], **options: Unpack[PredictOptions]
    ) -> list[list[Sentence]]: ...
    @overload
    def predict(
        self, inputs: Sequence[list[str] | tuple[str, ...]], **options: Unpack[PredictOptions]
    ) -> list[Sentence]: ...

    def predict(
        self,
        inputs: Item | Sequence[Item],
        *,
        batch_size: int | None = None,
        min_probability: float = 0.0,
        min_probability_entities: float | None = None,
        min_probability_relations: float | None = None,
    ) -> Any:
        """The sentences of a text, with the entities and relations found in them.

        Args:
            inputs: a text, which is split into sentences and words; a list of texts; or a list of sentences that are
                split already, each a list of words (`[["John", "works", "for", "IBM", "."]]`).
            batch_size: sentences of a batch at most; None: as many as `batch_pieces` allows, which is fastest.
            min_probability: what is less probable is left out, and relations of entities that are left out.
            min_probability_entities: the same for entities alone; None: `min_probability`.
            min_probability_relations: the same for relations alone; None: `min_probability`.

        Returns:
            For a text the list of its sentences, for a list of texts a list of such lists, one for each text, for a
            list of word lists one sentence for each. Offsets count characters of the text they belong to; those of
            word lists count in the words joined by spaces.

        Raises:
            DataError: the input is neither.
            ConfigError: a limit is not from 0 to 1, or `batch_size` is below 1.
        """
        if isinstance(inputs, Mapping) or not isinstance(inputs, Iterable):
            raise DataError(f"predict was given {type(inputs).__name__}; give a text, or a list of texts or word lists")
        results = self.predict_stream(
            [inputs] if isinstance(inputs, str) else cast(Iterable[Item], inputs),
            batch_size=batch_size,
            min_probability=min_probability,
            min_probability_entities=min_probability_entities,
            min_probability_relations=min_probability_relations,
        )
        return next(results) if isinstance(inputs, str) else list(results)

    def predict_stream(self, inputs: Iterable[Item], **options: Unpack[PredictOptions]) -> Iterator[Any]:
        """`predict` for any number of texts or word lists: an iterator with one result for each, in order.

        A result is a list of sentences for a text, a sentence for a list of words. Inputs are read as they are needed;
        some thousand sentences are held at a time. Options and errors are those of `predict`.
        """
        return self._stream(inputs, *_chosen(**options))

    def _stream(self, inputs: Iterable[Item], batch_size: int | None, limits: MinProbability) -> Iterator[Any]:
        waiting: deque[tuple[int, bool]] = deque()  # (sentences of an input, whether it is a text)

        def feed() -> Iterator[tuple[_Start, corpus.Sentence]]:
            for number, item in enumerate(inputs):
                sentences = _sentences(item, number)
                waiting.append((len(sentences), isinstance(item, str)))
                yield from ((_Start(number, start), sentence) for start, sentence in sentences)

        done: list[Sentence] = []
        for (_, start), predicted in self.predict_tagged(feed(), lambda tag: tag.document, batch_size):
            while waiting[0] == (0, True):
                waiting.popleft()
                yield []
            done.append(result_of(limits.apply(predicted), start))
            n_sentences, is_text = waiting[0]
            if len(done) == n_sentences:
                waiting.popleft()
                yield done if is_text else done[0]
                done = []
        yield from ([] for _ in waiting)

    def predict_files(
        self,
        inputs: str | Path | Sequence[str | Path],
        settings: InputSettings | None = None,
        **options: Unpack[PredictOptions],
    ) -> Iterator[Sentence]:
        """The sentences of text and JSON files, folders and globs, in order, with their places, as `spe predict` does.

        Args:
            inputs: what is to be read; "-" is standard input.
            settings: how it is read, such as `InputSettings(tokenised=True)`; None: as the files look.
            options: those of `predict`.

        Raises:
            DataError: a file does not exist or cannot be read, with file and line.
            ConfigError: as for `predict`.
        """
        batch_size, limits = _chosen(**options)
        paths = [inputs] if isinstance(inputs, str | Path) else inputs
        located = read_inputs([str(path) for path in paths], settings or InputSettings(), Skips())
        tagged = self.predict_tagged(located, lambda place: (place.file, place.document), batch_size)
        return (result_of(limits.apply(predicted), place.start, place) for place, predicted in tagged)

    def predict_corpus(self, gold: Corpus, **options: Unpack[PredictOptions]) -> Corpus:
        """The corpus with what was found in place of its gold: `score(gold, extractor.predict_corpus(gold))`.

        Options and errors are those of `predict`.
        """
        batch_size, limits = _chosen(**options)
        tagged = ((number, s) for number, document in enumerate(gold.documents) for s in document.sentences)
        predicted = self.predict_tagged(tagged, lambda number: number, batch_size)
        return gold.with_sentences([limits.apply(sentence) for _, sentence in predicted])

    def predict_tagged(
        self,
        items: Iterable[tuple[Tag, corpus.Sentence]],
        document_of: Callable[[Tag], Hashable],
        batch_size: int | None = None,
        workers: bool = True,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Iterator[tuple[Tag, corpus.Sentence]]:
        """Each sentence with its tag and what was predicted, spans in words, in order.

        Args:
            items: (tag, sentence) pairs; what is marked in the sentences is not looked at.
            document_of: the document of a sentence by its tag; context, where the model was trained with it, does not
                leave that.
            batch_size: as for `predict`.
            workers: False: one batch at a time, which torch splits over its threads.
            progress: is given the number of sentences of each batch that is done.
        """
        tags: deque[Tag] = deque()
        documents: deque[Hashable] = deque()
        context_pieces = self.maker.context_pieces

        def feed() -> Iterator[corpus.Sentence]:
            for tag, sentence in items:
                tags.append(tag)
                if context_pieces:
                    documents.append(document_of(tag))
                yield sentence

        predicted = predict_sentences(
            self.model,
            self.maker,
            feed(),
            batch_pieces=self.batch_pieces,
            batch_sentences=batch_size,
            bfloat16=self.bfloat16,
            documents=iter(documents.popleft, _NEVER) if context_pieces else None,
            notices=self.notices,
            workers=self._batch_workers() if workers else None,
            progress=progress,
        )
        for sentence in predicted:
            yield tags.popleft(), sentence

    def _batch_workers(self) -> BatchWorkers | None:
        """One for each thread that torch has now; None for one thread, and on a GPU."""
        threads = torch.get_num_threads()
        if threads == 1 or self.device.type != "cpu":
            return None
        if self._workers is None or self._workers.threads != threads:
            self._workers = BatchWorkers(threads)
        return self._workers


class _Start(NamedTuple):
    """Where a sentence stands in memory."""

    document: int
    start: int  # its first character


_NEVER = object()


def _chosen(
    batch_size: int | None = None,
    min_probability: float = 0.0,
    min_probability_entities: float | None = None,
    min_probability_relations: float | None = None,
) -> tuple[int | None, MinProbability]:
    """The options of a call, checked. Raises ConfigError."""
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size={batch_size} must be 1 or more, or None for as many as fit")
    return batch_size, MinProbability.of(min_probability, min_probability_entities, min_probability_relations)


def _sentences(item: Item, number: int) -> list[tuple[int, corpus.Sentence]]:
    if isinstance(item, str):
        return list(sentences_of_text(encodable(item)))
    if not isinstance(item, Sequence) or not all(isinstance(word, str) for word in item):
        raise DataError(f"input {number} is {type(item).__name__}; give a text or a list of words")
    [(_, sentence)] = place_words([[encodable(word) for word in item]])
    return [(0, sentence)]
