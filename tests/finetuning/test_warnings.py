"""What a run says of gold that it does not train or cannot find."""

from __future__ import annotations

import numpy as np
import pytest

from spe_dist.extraction.corpora.corpus import (
    Corpus,
    CrossEntity,
    CrossRelation,
    Document,
    Entity,
    Labels,
    Relation,
    Sentence,
)
from spe_dist.finetuning.data import Corpora, warnings_of


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Of a corpus in which half of the relations lie across sentences and half of the entities are nested."""
    ada, acme = Entity(0, 2, "P"), Entity(3, 4, "C")
    words = ("Ada", "Byron", "of", "Acme")
    sentence = Sentence(words, (ada, Entity(1, 2, "P"), acme), (Relation("works", ada, acme),))
    across = CrossRelation("coref", CrossEntity(4, 5, "P"), CrossEntity(0, 2, "P"))
    documents = tuple(
        Document(str(i), (sentence, Sentence(("She",), (Entity(0, 1, "P"),))), (), (across,)) for i in "ab"
    )
    corpus = Corpus(documents)
    labels = Labels.of(corpus.sentences)
    assert labels.relation_types == ("works",)
    return warnings_of(Corpora(corpus, corpus, None, np.arange(corpus.n_sentences), labels))


def test_relations_across_sentences_and_types_that_are_only_there_are_said_of_training(lines):
    of_train = [line for line in lines if line.startswith("train: ")]
    assert of_train == [
        "train: 2 of 4 relations are not trained: across sentences: 2",
        "train: relation types that are never trained: coref: 2",
    ]


def test_all_that_lowers_recall_is_said_of_what_is_scored(lines):
    assert "dev: 2 of 8 entities cannot be found (recall 75.0% at most): overlapping others: 2" in lines
    assert "dev: 2 of 4 relations cannot be found (recall 50.0% at most): across sentences: 2" in lines
