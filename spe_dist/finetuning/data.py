"""The corpora of a fine-tuning run, checked, and its training batches."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spe_dist.config.finetuning import DataConfig, FinetuneConfig
from spe_dist.data.batches.replacing import Replacements
from spe_dist.data.text.characters import count_longer
from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.annotations.brat import is_brat
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora.corpus import Corpus, Labels, Sentence
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.joint.batch import ExtractionBatch, collate
from spe_dist.extraction.joint.examples import Example, document_ids, make_examples
from spe_dist.extraction.scoring.ceiling import ceiling_lines, gold_ceiling
from spe_dist.extraction.scoring.matching import check_symmetric
from spe_dist.finetuning.sampling import (
    choose_share,
    count_steps,
    draw_gold,
    draw_spans,
    epoch_batches,
    gold_probability,
    part_of_rank,
)
from spe_dist.utils.wording import counted, how_many

ENOUGH_DEV_SENTENCES = 100
LONGER_WORDS = 0.2  # share of the words of scripts without spaces above which they are not characters
NO_RELATIONS = (
    "the training sentences have no relations, so the model learns to find entities alone and its best epoch is that "
    "of the best entity F1; train on a corpus with relations to find these too"
)


@dataclass(frozen=True)
class Corpora:
    """What is trained on and scored. `chosen_N`: numbers of the training sentences that are used, in file order."""

    train: Corpus
    dev: Corpus | None
    test: Corpus | None
    chosen_N: np.ndarray
    labels: Labels  # of the chosen sentences
    symmetric: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[Sentence]:
        sentences = self.train.sentences
        return [sentences[i] for i in self.chosen_N]

    def evaluated(self) -> dict[str, Corpus]:
        """dev and test, where they are given."""
        return {name: corpus for name, corpus in (("dev", self.dev), ("test", self.test)) if corpus is not None}


def read_corpora(config: FinetuneConfig) -> Corpora:
    """All corpora of the run. Raises DataError naming the file, or ConfigError for a share without a sentence."""
    data = config.data
    assert data.train is not None
    train = _read("train", data.train, data)
    dev, test = (
        None if path is None else _read(name, path, data) for name, path in (("dev", data.dev), ("test", data.test))
    )
    check_symmetric(data.symmetric, *filter(None, (train, dev, test)))
    chosen_N = choose_share(train.n_sentences, data.train_share, config.train.seed)
    sentences = train.sentences
    chosen_N = chosen_N[[len(sentences[i].words) > 0 for i in chosen_N]]
    if not len(chosen_N):
        raise ConfigError(
            f"train_share={data.train_share:g} of the {train.n_sentences:,} sentences in {data.train} is none with "
            f"words; choose at least {1 / train.n_sentences:.2g}"
        )
    labels = Labels.of(sentences[i] for i in chosen_N)
    if not labels.entity_types:
        raise DataError(
            f"the {len(chosen_N):,} training sentences of {data.train} have no entities, so there is nothing to learn; "
            "check the file with spe corpus inspect, or its --format"
        )
    return Corpora(train, dev, test, chosen_N, labels, tuple(data.symmetric))


def _read(name: str, path: str, data: DataConfig) -> Corpus:
    if not Path(path).is_file() and not is_brat(Path(path)):
        what = "does not exist"
        if Path(path).exists():
            other = "is a pipe or device, which ranks and resumed runs cannot read again"
            what = "is a folder without .ann files" if Path(path).is_dir() else other
        raise DataError(f"{name}={path} {what}; give a file of sentences with --{name}")
    corpus = read_corpus(
        path, data.format, settings=AnnotationSettings(data.cut_words, data.concept_pairs, data.text_language)
    )
    if corpus.n_sentences == 0:
        raise DataError(f"{name}={path} holds no sentences; give another file with --{name}")
    if name == "dev" and not any(sentence.entities for sentence in corpus.sentences):
        raise DataError(
            f"dev={path} has no entities, so it cannot choose the best epoch; give another file, or leave --dev out to "
            "keep the last epoch"
        )
    return corpus


def warnings_of(corpora: Corpora) -> list[str]:
    """What reading passed over, gold that is not trained or cannot be found, and types that training does not have."""
    lines = []
    for name, corpus in {"train": corpora.train, **corpora.evaluated()}.items():
        lines += [f"{name}: {notice}" for notice in counted(corpus.notices)]
        ceiling = gold_ceiling(corpus, corpora.symmetric)
        lines += [f"{name}: {line}" for line in ceiling_lines(ceiling, of_training=name == "train")]
    if not corpora.labels.relation_types:
        lines.append(f"warning: {NO_RELATIONS}")
    longer, unspaced = count_longer(word for sentence in corpora.train.sentences for word in sentence.words)
    if longer > LONGER_WORDS * unspaced:
        lines.append(
            f"warning: train: {longer:,} of {unspaced:,} words in a script without spaces have several characters, but "
            "raw text is read character by character; predict on text that is split into such words (--tokenised)"
        )
    if corpora.dev is not None and corpora.dev.n_sentences < ENOUGH_DEV_SENTENCES:
        few = how_many(corpora.dev.n_sentences, "sentence")
        lines.append(f"warning: dev has only {few}: which epoch is the best is partly chance; give a larger --dev")
    for name, corpus in corpora.evaluated().items():
        for kind, found, known in (
            ("entities", _types(corpus, "entities"), corpora.labels.entity_types),
            ("relations", _types(corpus, "relations"), corpora.labels.relation_types),
        ):
            unseen = {label: count for label, count in found.items() if label not in known}
            if unseen:
                listed = ", ".join(f"{label} ({count:,})" for label, count in sorted(unseen.items()))
                lines.append(
                    f"warning: {name} has {sum(unseen.values()):,} {kind} of types that no training sentence has, "
                    f"which will never be found: {listed}"
                )
    return lines


def _types(corpus: Corpus, what: str) -> Counter[str]:
    return Counter(item.type for sentence in corpus.sentences for item in getattr(sentence, what))


@dataclass(frozen=True)
class TrainingData:
    """The training examples and their order."""

    examples: list[Example]
    numbers_N: np.ndarray  # of each example's sentence in the training file
    config: FinetuneConfig
    epochs: int
    notices: Counter[str]  # what the model cannot represent, counted
    left_out: tuple[int, ...] = ()  # numbers of sentences in the training file that are not trained

    @property
    def n_sentences(self) -> int:
        return len(self.examples)

    @functools.cached_property
    def most_windows(self) -> int:
        return max(len(example.windows) for example in self.examples)

    @property
    def steps_per_epoch(self) -> int:
        return count_steps(self.n_sentences, self.config.train.batch_sentences)

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def batch(self, step: int, rank: int, ranks: int) -> tuple[ExtractionBatch, Tensor, int]:
        """This rank's part of a step: the batch, whether each sentence takes gold entities, sentences of all ranks."""
        sampling, epoch = self.config.sampling, step // self.steps_per_epoch
        whole_B, _ = self._whole_batch(step)
        mine_B = part_of_rank(whole_B, rank, ranks)
        probability = gold_probability(epoch, sampling.gold_epochs, sampling.gold_decay)
        seed = self.config.train.seed
        gold_B = draw_gold(self.numbers_N[mine_B], probability, seed, epoch)
        first_slot = sum(len(part_of_rank(whole_B, other, ranks)) for other in range(rank))
        batch = collate([self.examples[i] for i in mine_B])
        if sampling.negative_spans:
            words_B, numbers_B = batch.sentence_borders_B1.diff().numpy(), self.numbers_N[mine_B]
            per_sentence, widest = sampling.negative_spans, sampling.negative_width
            batch = batch.with_negative_spans(*draw_spans(words_B, numbers_B, per_sentence, widest, seed, epoch))
        batch = batch.with_dropout_keys(seed, step, first_slot, len(whole_B), self.most_windows)
        return batch, torch.from_numpy(gold_B), len(whole_B)

    def sentence_ids(self, step: int, rank: int, ranks: int) -> list[int]:
        """Numbers, in the training file, of the sentences of this rank's part of a step."""
        return self.numbers_N[part_of_rank(self._whole_batch(step)[0], rank, ranks)].tolist()

    def replaced(self, step: int) -> int:
        """Sentences of a step, on all ranks, that stand in the place of one that is left out."""
        return int(self._whole_batch(step)[1].sum())

    @cached_property
    def _replacements(self) -> Replacements:
        return Replacements(np.flatnonzero(np.isin(self.numbers_N, self.left_out)), self.n_sentences)

    def _whole_batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(examples, whether each stands in the place of another)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        train = self.config.train
        return self._replacements(epoch_batches(self.n_sentences, train.batch_sentences, train.seed, epoch)[place])

    def without(self, left_out: Sequence[int]) -> TrainingData:
        """The same with sentences left out. Raises ConfigError where none would be left."""
        if len(left_out) and np.isin(self.numbers_N, left_out).all():
            raise ConfigError(
                f"skip_sentences={self.config.train.skip_sentences} leaves none of the {self.n_sentences:,} training "
                "sentences; name fewer"
            )
        return replace(self, left_out=tuple(left_out))


def prepare_training(config: FinetuneConfig, corpora: Corpora, tokenizer: Any, max_pieces: int) -> TrainingData:
    """Examples of the chosen sentences. With document context, that of the whole training file is read."""
    notices: Counter[str] = Counter()
    context_pieces = config.data.context_pieces
    if context_pieces:
        chosen = set(corpora.chosen_N.tolist())
        everything = make_examples(
            corpora.train.sentences,
            tokenizer,
            corpora.labels,
            max_pieces,
            context_pieces,
            document_ids(corpora.train),
            notices,
        )
        examples = [example for i, example in enumerate(everything) if i in chosen]
    else:
        examples = make_examples(corpora.sentences, tokenizer, corpora.labels, max_pieces, notices=notices)
    train = config.train
    epochs = math.ceil(round(train.epochs * config.data.train_share**-train.epoch_scaling, 6))
    return TrainingData(examples, corpora.chosen_N, config, epochs, notices)


def check_ranks(data: TrainingData, ranks: int) -> None:
    """Every rank has a sentence in every step. Raises ConfigError."""
    if data.n_sentences // data.steps_per_epoch < ranks:
        raise ConfigError(
            f"{data.n_sentences} training sentences in {data.steps_per_epoch} steps leave some of {ranks} ranks "
            "without a sentence; use fewer ranks, or a larger train_share"
        )


def sentences_sha256(sentences: Sequence[Sentence]) -> str:
    """SHA-256 of words, entities and relations: whether a resumed run has the data that it began with."""
    digest = hashlib.sha256()
    for sentence in sentences:
        marked = [[e.start, e.end, e.type] for e in sentence.entities]
        related = [[r.type, *r.head.span, *r.tail.span] for r in sentence.relations]
        digest.update(json.dumps([sentence.words, marked, related]).encode())
    return digest.hexdigest()
