"""Predictions for a corpus, spread over the ranks, and their scores.

What is evaluated has the engine's float32 masters: the very weights that are saved, whatever precision and ZeRO stage
they are trained in. Where the engine's own module does not hold them, it is a plain copy that does. In mixed precision
its encoder's matrix products are in bfloat16, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import torch
from torch import nn

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.extraction.corpora.corpus import Corpus, Document, Sentence
from spe_dist.extraction.joint.examples import ExampleMaker
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.predicting.stream import StreamSettings, predict_sentences
from spe_dist.extraction.scoring.scores import Scores, score

SENTENCES_BETWEEN_LOOKS = 256  # after so many, a rank looks whether it was asked to stop


class Evaluation:
    """Predicts and scores corpora with all ranks. Every method is a collective."""

    def __init__(
        self,
        maker: ExampleMaker,
        context: RankContext,
        symmetric: Iterable[str] = (),
        product_dtype: torch.dtype | None = None,
    ) -> None:
        self.maker = maker
        self.context = context
        self.symmetric = tuple(symmetric)
        self.product_dtype = product_dtype

    def predict(
        self,
        model: JointModel,
        corpus: Corpus,
        stopped: Callable[[], bool] = lambda: False,
        given_entities: bool = False,
    ) -> Corpus | None:
        """The corpus with predictions in place of its gold, on every rank; None where `stopped` was true on any.

        Rank r reads documents r, r + ranks, ... `given_entities`: predicted are the relations between gold entities.
        """
        model.spe.encoder.product_dtype = self.product_dtype
        ranks = self.context.ranks
        parts = self.context.all_gather_object(
            self._predict(model, corpus.documents[self.context.rank :: ranks], stopped, given_entities)
        )
        if any(part is None for part in parts):
            return None
        by_rank = [iter(part) for part in parts]
        sentences = chain.from_iterable(
            (next(by_rank[i % ranks]) for _ in document.sentences) for i, document in enumerate(corpus.documents)
        )
        return corpus.with_sentences(list(sentences))

    def _predict(
        self, model: JointModel, documents: Sequence[Document], stopped: Callable[[], bool], given_entities: bool
    ) -> list[Sentence] | None:
        numbered = [(number, s) for number, document in enumerate(documents) for s in document.sentences]
        found: list[Sentence] = []
        for sentence in predict_sentences(
            model,
            self.maker,
            [sentence for _, sentence in numbered],
            StreamSettings(buffered_sentences=SENTENCES_BETWEEN_LOOKS, given_entities=given_entities),
            documents=[number for number, _ in numbered],
        ):
            if len(found) % SENTENCES_BETWEEN_LOOKS == 0 and stopped():
                return None
            found.append(sentence)
        return found

    def score(
        self,
        model: JointModel,
        corpus: Corpus,
        stopped: Callable[[], bool] = lambda: False,
        given_entities: bool = False,
    ) -> tuple[Corpus, Scores] | None:
        """Predictions and their scores, on every rank alike; None where `stopped` was true on any."""
        predicted = self.predict(model, corpus, stopped, given_entities)
        if predicted is None:
            return None
        return predicted, self.context.run_on_main(lambda: score(corpus, predicted, self.symmetric, given_entities))


def copy_masters(engine: TrainingEngine, plain: nn.Module) -> None:
    """Give the plain model the engine's float32 masters; nothing to do where it is the engine's own. A collective."""
    if plain is engine.module:
        return
    masters = engine.master_weights(all_ranks=True)
    missing, unexpected = plain.load_state_dict(masters, strict=False)
    buffers = {name for name, _ in plain.named_buffers()}
    assert not unexpected and set(missing) <= buffers, (missing, unexpected)
