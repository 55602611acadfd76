"""A fine-tuned model for people who have text, in plain PyTorch.

    from spe_dist import Extractor
    extractor = Extractor.from_pretrained("runs/conll04/model")
    for sentence in extractor.predict("Mikhail Gorbachev lives in Moscow, Russia."):
        print(sentence)

prints the text with what was found in it, here by a small model of CoNLL04:

    Mikhail Gorbachev [Peop 0.98] lives in Moscow [Loc 0.98], Russia [Loc 0.98].
      Mikhail Gorbachev --Live_In--> Moscow, 0.64
      Mikhail Gorbachev --Live_In--> Russia, 0.59
      Moscow --Located_In--> Russia, 0.87
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack, cast, overload

import torch

from spe_dist.data.text.languages import AUTO, check_language
from spe_dist.data.text.lines import Skips
from spe_dist.data.text.remote import local_inputs
from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora import corpus
from spe_dist.extraction.corpora.corpus import Corpus
from spe_dist.extraction.joint.card import SCORES
from spe_dist.extraction.joint.examples import ExampleMaker
from spe_dist.extraction.joint.folder import LoadedExtractor, load_extractor
from spe_dist.extraction.joint.thresholds import ARGMAX, Choice, Thresholds
from spe_dist.extraction.predicting.calls.items import CARRIERS, Item
from spe_dist.extraction.predicting.calls.options import Chosen, PredictOptions, chosen_options
from spe_dist.extraction.predicting.calls.streaming import results_of_inputs
from spe_dist.extraction.predicting.device import choose_device, fast_bfloat16
from spe_dist.extraction.predicting.given import EntitiesChoice
from spe_dist.extraction.predicting.inputs import read_corpora, read_inputs
from spe_dist.extraction.predicting.results import Sentence, result_of
from spe_dist.extraction.predicting.stream import BATCH_PIECES, StreamSettings, predict_each, predict_sentences
from spe_dist.extraction.predicting.text_input import InputSettings
from spe_dist.extraction.predicting.workers import BatchWorkers
from spe_dist.model.prepacked import prepack
from spe_dist.utils.wording import how_many

Tag = TypeVar("Tag")


class Extractor:
    """Finds entities and relations in text.

    On a CPU several batches are computed at a time, one by each of torch's threads (`torch.set_num_threads`), so that
    other processes on the machine slow prediction down by what they take and no more. Probabilities depend in their
    last digits on which sentences share a batch.

    Attributes:
        labels: the types of entities and relations that it knows.
        notices: counts of what was not read whole, such as sentences read in windows, and of what was left out, such as
            given entities that lie outside of their text.
        device: where the model is.
        thresholds: the least probability of entities and relations where a call names none: those that were kept in the
            model folder (`spe thresholds --keep`), else none.
        language: of texts that are split into sentences and words.
    """

    def __init__(
        self,
        loaded: LoadedExtractor,
        *,
        batch_pieces: int = BATCH_PIECES,
        bfloat16: bool | None = None,
        language: str | None = None,
        name: str = "",
    ) -> None:
        """Args as in `from_pretrained`; `name` is shown where the extractor is printed."""
        if batch_pieces < 1:
            raise ConfigError(f"batch_pieces={batch_pieces} must be 1 or more")
        self.model, self.tokenizer, self.labels = loaded.model, loaded.tokenizer, loaded.labels
        self.settings, self.facts, self.name = loaded.settings, loaded.facts, name
        self.thresholds = loaded.thresholds
        self.maker = ExampleMaker(self.tokenizer, None, self.settings["max_pieces"], self.settings["context_pieces"])
        self.batch_pieces = batch_pieces
        self.bfloat16 = fast_bfloat16(self.device) if bfloat16 is None else bfloat16
        if self.bfloat16:
            prepack(self.model.spe.encoder.to(torch.bfloat16))
        self.language = check_language(self.settings["language"] if language is None else language)
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
        language: str | None = None,
    ) -> Extractor:
        """The model of a fine-tuned folder (OUTPUT/model of `spe finetune`).

        Args:
            folder: its path.
            device: "cpu", "cuda" or "cuda:N"; None: the GPU where there is one.
            batch_pieces: word pieces that are computed at a time; this bounds memory.
            bfloat16: matrix products in bfloat16, and the encoder's weights and sums too; None: where the device is
                fast at it.
            language: of texts, for their words and sentence ends, such as "de"; "auto": by the script of each
                paragraph; None: as in training.

        Raises:
            CheckpointError: the folder is no fine-tuned model, or is damaged.
            ConfigError: the device is unknown, or torch does not see it; the language is unknown.
        """
        loaded = load_extractor(folder, choose_device(device))
        name = "/".join(Path(folder).absolute().parts[-2:])
        return cls(loaded, batch_pieces=batch_pieces, bfloat16=bfloat16, language=language, name=name)

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
        if self.thresholds != ARGMAX:
            parts.append(f"thresholds of {self.thresholds}")
        doubt = self.doubt()
        return f"Extractor({self.name}: {'; '.join([*parts, doubt] if doubt else parts)})"

    def doubt(self) -> str | None:
        """That this model got nothing right when it was scored after its training, in words.

        None where it did, and where thresholds were kept since, with which it was not scored.
        """
        if self.thresholds != ARGMAX:
            return None
        for scores in self.facts.get(SCORES, {}).values():
            for kind, types in (("entity", self.labels.entity_types), ("relation", self.labels.relation_types)):
                if types and scores.get(kind) == 0:
                    return f"got no {kind} of {scores['corpus']} right; train it longer, or on more sentences"
        return None

    @overload
    def predict(
        self, inputs: str | Mapping[str, Any] | Sentence | corpus.Sentence, **options: Unpack[PredictOptions]
    ) -> list[Sentence]: ...
    @overload
    def predict(
        self, inputs: list[str] | tuple[str, ...], **options: Unpack[PredictOptions]
    ) -> list[list[Sentence]]: ...
    @overload
    def predict(
        self,
        inputs: Sequence[list[str] | tuple[str, ...]] | Sequence[Sentence] | Sequence[corpus.Sentence],
        **options: Unpack[PredictOptions],
    ) -> list[Sentence]: ...
    @overload
    def predict(self, inputs: Sequence[Mapping[str, Any]], **options: Unpack[PredictOptions]) -> list[Any]: ...

    def predict(
        self,
        inputs: Item | Sequence[Item],
        *,
        batch_size: int | None = None,
        entities: EntitiesChoice = "found",
        min_probability: float = 0.0,
        min_probability_entities: float | None = None,
        min_probability_relations: float | None = None,
        threshold_entities: Choice = None,
        threshold_relations: Choice = None,
    ) -> Any:
        """The sentences of a text, with the entities and relations found in them.

        Args:
            inputs: a text, which is split into sentences and words; a list of texts; or a list of sentences that are
                split already, each a list of words (`[["John", "works", "for", "IBM", "."]]`). Where entities are
                given, what carries them: results of `predict`, sentences of a corpus, or objects as `read_corpus` knows
                them from files (`[{"tokens": [...], "entities": [...], "relations": []}]`), one or a list.
            batch_size: sentences of a batch at most; None: as many as `batch_pieces` allows, which is fastest.
            entities: "found": those that the model finds; "given": those that the inputs carry, of any types, with the
                relations between them.
            min_probability: what is less probable is left out, and relations of entities that are left out. An entity
                that is given without a probability has 1.
            min_probability_entities: the same for entities alone; None: `min_probability`.
            min_probability_relations: the same for relations alone; None: `min_probability`.
            threshold_entities: all spans whose best type has at least this probability are entities, also those that
                the model would rather not mark; of spans that overlap the most probable one. "argmax": what the model
                finds most probable; None: as the model folder says, "argmax" unless thresholds were kept there.
            threshold_relations: the same for relations: the best type of two entities from this probability on, even
                where none is more probable.

        Returns:
            For a text the list of its sentences, for a list of texts a list of such lists, one for each text, for a
            list of word lists one sentence for each, as for sentences that carry entities; an object has a list, unless
            it is a sentence by its format (`tokens`). Offsets count characters of the text they belong to; those of
            word lists count in the words joined by spaces.

        Raises:
            DataError: the input is none of these.
            ConfigError: a limit is not from 0 to 1, a threshold not from 0.01 to 1, `batch_size` is below 1, or
                `entities` is unknown.
        """
        is_one = isinstance(inputs, (str, *CARRIERS))
        if not is_one and not isinstance(inputs, Iterable):
            raise DataError(f"predict was given {type(inputs).__name__}; give a text, or a list of texts or word lists")
        results = self.predict_stream(
            [cast(Item, inputs)] if is_one else cast(Iterable[Item], inputs),
            batch_size=batch_size,
            entities=entities,
            min_probability=min_probability,
            min_probability_entities=min_probability_entities,
            min_probability_relations=min_probability_relations,
            threshold_entities=threshold_entities,
            threshold_relations=threshold_relations,
        )
        return next(results) if is_one else list(results)

    def predict_stream(self, inputs: Iterable[Item], **options: Unpack[PredictOptions]) -> Iterator[Any]:
        """`predict` for any number of texts or word lists: an iterator with one result for each, in order.

        A result is a list of sentences for a text, a sentence for a list of words. Inputs are read as they are needed;
        some thousand sentences are held at a time. Options and errors are those of `predict`.
        """
        chosen = chosen_options(**options, stored=self.thresholds)
        return results_of_inputs(inputs, chosen, self.language, partial(self._tagged, chosen=chosen), self.notices)

    def predict_files(
        self,
        inputs: str | Path | Sequence[str | Path],
        settings: InputSettings | None = None,
        **options: Unpack[PredictOptions],
    ) -> Iterator[Sentence]:
        """The sentences of text and JSON files, folders and globs, in order, with their places, as `spe predict` does.

        Args:
            inputs: what is to be read; "-" is standard input, URLs are fetched into the user's cache folder.
            settings: how it is read, such as `InputSettings(tokenised=True)`; None: as the files look. Its language
                "auto" is that of this extractor.
            options: those of `predict`.

        Raises:
            DataError: a file does not exist or cannot be read, with file and line.
            ConfigError: as for `predict`.
        """
        chosen = chosen_options(**options, stored=self.thresholds)
        given = [str(path) for path in ([inputs] if isinstance(inputs, str | Path) else inputs)]
        fetched = local_inputs(given)
        paths = fetched.names
        skips = Skips()
        if chosen.given_entities:
            located = read_corpora(paths, skips, settings=AnnotationSettings(language=self.language))
        else:
            settings = settings or InputSettings()
            if settings.language == AUTO:
                settings = replace(settings, language=self.language)
            located = read_inputs(paths, settings, skips)

        def results() -> Iterator[Sentence]:
            try:
                for place, predicted in self._tagged(located, lambda place: (place.file, place.document), chosen):
                    file = fetched.urls.get(place.file, place.file)
                    yield result_of(chosen.limits.apply(predicted), place.start, place._replace(file=file))
            finally:
                self.notices.update(+skips.counts)

        return results()

    def predict_corpus(self, gold: Corpus, **options: Unpack[PredictOptions]) -> Corpus:
        """The corpus with what was found in place of its gold: `score(gold, extractor.predict_corpus(gold))`.

        Options and errors are those of `predict`.
        """
        chosen = chosen_options(**options, stored=self.thresholds)
        tagged = ((number, s) for number, document in enumerate(gold.documents) for s in document.sentences)
        predicted = self._tagged(tagged, lambda number: number, chosen)
        return gold.with_sentences([chosen.limits.apply(sentence) for _, sentence in predicted])

    def predict_corpus_each(self, gold: Corpus, choices: Sequence[Thresholds]) -> list[Corpus]:
        """`predict_corpus` for each of several thresholds, without reading the corpus more than once."""
        documents = (number for number, document in enumerate(gold.documents) for _ in document.sentences)
        predicted = predict_each(
            self.model,
            self.maker,
            gold.sentences,
            choices,
            StreamSettings(batch_pieces=self.batch_pieces, bfloat16=self.bfloat16, workers=self._batch_workers()),
            documents=documents if self.maker.context_pieces else None,
            notices=self.notices,
        )
        return [gold.with_sentences(found) for found in zip(*predicted, strict=True)] or [gold for _ in choices]

    def _tagged(
        self,
        items: Iterable[tuple[Tag, corpus.Sentence]],
        document_of: Callable[[Tag], Hashable],
        chosen: Chosen,
    ) -> Iterator[tuple[Tag, corpus.Sentence]]:
        given, thresholds = chosen.given_entities, chosen.thresholds
        return self.predict_tagged(items, document_of, chosen.batch_size, given_entities=given, thresholds=thresholds)

    def predict_tagged(
        self,
        items: Iterable[tuple[Tag, corpus.Sentence]],
        document_of: Callable[[Tag], Hashable],
        batch_size: int | None = None,
        workers: bool = True,
        progress: Callable[[int], None] = lambda _: None,
        given_entities: bool = False,
        thresholds: Thresholds | None = None,
    ) -> Iterator[tuple[Tag, corpus.Sentence]]:
        """Each sentence with its tag and what was predicted, spans in words, in order.

        Args:
            items: (tag, sentence) pairs; what is marked in the sentences is not looked at, unless `given_entities`.
            document_of: the document of a sentence by its tag; context, where the model was trained with it, does not
                leave that.
            batch_size: as for `predict`.
            workers: False: one batch at a time, which torch splits over its threads.
            progress: is given the number of sentences of each batch that is done.
            given_entities: relations are those between the entities of the sentences, which stay.
            thresholds: the least probabilities; None: those of the model folder.
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
            StreamSettings(
                batch_pieces=self.batch_pieces,
                batch_sentences=batch_size,
                bfloat16=self.bfloat16,
                workers=self._batch_workers() if workers else None,
                given_entities=given_entities,
            ),
            thresholds=self.thresholds if thresholds is None else thresholds,
            documents=iter(documents.popleft, _NEVER) if context_pieces else None,
            notices=self.notices,
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


_NEVER = object()
