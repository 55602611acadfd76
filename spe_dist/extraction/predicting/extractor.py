"""A fine-tuned model for people who have text, in plain PyTorch.

from spe_dist import Extractor
extractor = Extractor.from_pretrained("runs/conll04/model")
for sentence in extractor.predict("John Smith works for IBM in Boston. He likes it."):
    print(sentence.text, sentence.entities, sentence.relations)
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.corpora.corpus import Sentence
from spe_dist.extraction.joint.examples import ExampleMaker
from spe_dist.extraction.joint.folder import LoadedExtractor, load_extractor
from spe_dist.extraction.predicting.json_input import place_words
from spe_dist.extraction.predicting.sentences import fast_bfloat16, predict_sentences
from spe_dist.extraction.predicting.text_input import encodable, sentences_of_text
from spe_dist.model.prepacked import prepack

Tag = TypeVar("Tag")
Item = str | Sequence[str] | Sentence


class Extractor:
    """Finds entities and relations in text.

    batch_pieces: word pieces read together. bfloat16: matrix products in bfloat16, and the encoder's weights and sums
    too; None: where the device is fast at it. notices: counts what the model could not look at whole, such as
    sentences read in windows.
    """

    def __init__(
        self,
        loaded: LoadedExtractor,
        *,
        batch_pieces: int = 4096,
        bfloat16: bool | None = None,
    ) -> None:
        if batch_pieces < 1:
            raise ConfigError(f"batch_pieces={batch_pieces} must be 1 or more")
        self.model, self.tokenizer, self.labels = loaded.model, loaded.tokenizer, loaded.labels
        self.settings = loaded.settings
        self.maker = ExampleMaker(self.tokenizer, None, self.settings["max_pieces"], self.settings["context_pieces"])
        self.batch_pieces = batch_pieces
        self.bfloat16 = fast_bfloat16(self.device) if bfloat16 is None else bfloat16
        if self.bfloat16:
            prepack(self.model.spe.encoder.to(torch.bfloat16))
        self.notices: Counter[str] = Counter()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        *,
        batch_pieces: int = 4096,
        bfloat16: bool | None = None,
    ) -> Extractor:
        """The model of a fine-tuned folder, on the GPU where there is one. Raises CheckpointError, ConfigError."""
        loaded = load_extractor(folder, choose_device(device))
        return cls(loaded, batch_pieces=batch_pieces, bfloat16=bfloat16)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def predict(self, inputs: Item | Sequence[Item]) -> Any:
        """Sentences with entities and relations, spans in words; `char_spans` places the words in a sentence's `text`.

        A text gives a list: its sentences, each with its first character in the text as `extra["start"]`. A list of
        texts gives a list of such lists, a list of word lists (or of Sentences) a list of Sentences.
        """
        if isinstance(inputs, str):
            return next(self.predict_stream([inputs]))
        if isinstance(inputs, Sentence):
            raise DataError("predict was given one Sentence; give a list of them")
        if isinstance(inputs, Mapping) or not isinstance(inputs, Iterable):
            raise DataError(f"predict was given {type(inputs).__name__}; give a text, or a list of texts or word lists")
        return list(self.predict_stream(cast(Iterable[Item], inputs)))

    def predict_stream(self, inputs: Iterable[Item]) -> Iterator[Any]:
        """The same for any number of texts, word lists or Sentences, one result for each, in order.

        Some thousand sentences are held at a time.
        """
        waiting: deque[tuple[int, bool]] = deque()  # (sentences of an input, whether it is a text)

        def feed() -> Iterator[tuple[int, Sentence]]:
            for number, item in enumerate(inputs):
                sentences = _sentences(item, number)
                waiting.append((len(sentences), isinstance(item, str)))
                yield from ((number, sentence) for sentence in sentences)

        done: list[Sentence] = []
        for _, predicted in self.predict_tagged(feed(), lambda number: number):
            while waiting[0] == (0, True):
                waiting.popleft()
                yield []
            done.append(predicted)
            n_sentences, is_text = waiting[0]
            if len(done) == n_sentences:
                waiting.popleft()
                yield done if is_text else done[0]
                done = []
        yield from ([] for _ in waiting)

    def predict_tagged(
        self, items: Iterable[tuple[Tag, Sentence]], document_of: Callable[[Tag], Hashable]
    ) -> Iterator[tuple[Tag, Sentence]]:
        """Each sentence with its tag and what was predicted, in order.

        document_of: the document of a sentence by its tag; context, where the model was trained with it, does not leave
        that.
        """
        tags: deque[Tag] = deque()
        documents: deque[Hashable] = deque()
        context_pieces = self.maker.context_pieces

        def feed() -> Iterator[Sentence]:
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
            bfloat16=self.bfloat16,
            documents=iter(documents.popleft, _NEVER) if context_pieces else None,
            notices=self.notices,
        )
        for sentence in predicted:
            yield tags.popleft(), sentence


_NEVER = object()


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the GPU where there is one. Raises ConfigError."""
    if device in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(cast(Any, device))
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={str(device)!r} is unknown; choose auto, cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={str(device)!r}: torch sees {torch.cuda.device_count()} GPUs; choose cpu or auto")
    return chosen


def _sentences(item: Item, number: int) -> list[Sentence]:
    if isinstance(item, str):
        return [replace(sentence, extra={"start": start}) for start, sentence in sentences_of_text(encodable(item))]
    if isinstance(item, Sentence):
        return [item]
    if not isinstance(item, Sequence) or not all(isinstance(word, str) for word in item):
        raise DataError(f"input {number} is {type(item).__name__}; give a text, a list of words or a Sentence")
    return [sentence for _, sentence in place_words([[encodable(word) for word in item]])]
