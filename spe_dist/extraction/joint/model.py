"""Joint model: entity span detection, entity typing and relation classification on one encoder (METHOD, Fine-tuning).

One pass: words are tagged, the best valid tags give spans, the span encoder types them, and every two entities of a
sentence are classified by the span pair encoder. The convolution's products are computed once a word, span vectors
once a distinct span, however many pairs share them; so with dropout pairs also share the dropped elements.

A probability of an entity is P(type | span) times the probability that the span is one, its share of all valid tag
sequences (see `posteriors`); that of a relation is P(relation and direction | the two entities).

Every module reads only its own parameters and only inside its own `forward`, so an engine may shard them; each is
called equally often in each training pass, on one row that counts nothing where there is no example.

Legend of the shape suffixes:
    B sentences, Q sequences, W words of the windows, N = Q + W kept tokens, G words of the sentences, S typed spans,
    P pairs, D hidden size, H span size, Y entity classes, Z relation classes, E entities, R relations
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.extraction.joint.batch import ExtractionBatch
from spe_dist.extraction.joint.candidates import (
    Pairs,
    Spans,
    all_pairs,
    cut_in_five,
    given_classes,
    in_windows,
    predicted_spans,
    typing_candidates,
    with_gold_pairs,
)
from spe_dist.extraction.joint.choices import candidate_spans, choose_entities, choose_relations
from spe_dist.extraction.joint.dropout_keys import context_keys, pair_keys, span_keys
from spe_dist.extraction.joint.features import Features, PairFeatures, SpanFeatures
from spe_dist.extraction.joint.tags import TAGS, best_tags, spans_of_tags
from spe_dist.extraction.joint.thresholds import ARGMAX, Thresholds
from spe_dist.model.devices import send
from spe_dist.model.dropout import Dropout, token_keys
from spe_dist.model.free_spans import WordTables
from spe_dist.model.heads import Mlp, initialize
from spe_dist.model.spe import SpeModel
from spe_dist.training.terms import Term, classification

PAIRS_AT_ONCE = 4096  # pairs that a prediction classifies together: bounds its memory, not what it finds


@dataclass(frozen=True)
class JointOutputs:
    """Losses of a batch: "detection" counts words, "typing" and "relation" their candidates."""

    terms: dict[str, Term]
    anchor: Tensor  # 0-dim, zero: ties heads without examples to the graph, so that every rank has every gradient


@dataclass(frozen=True)
class BatchPrediction:
    """What was found in a batch, on the CPU; entities sorted by sentence and position."""

    entity_sentence_E: Tensor  # int64: sentence of the batch
    entity_start_E: Tensor  # int64: word of the sentence
    entity_end_E: Tensor
    entity_class_E: Tensor  # int64, 1 or more: see `Labels`; 0 of entities that were given
    entity_probability_E: Tensor  # float32
    relation_first_R: Tensor  # int64: index into E of the entity that stands first
    relation_second_R: Tensor
    relation_class_R: Tensor  # int64, 1 or more: see `Labels`
    relation_probability_R: Tensor  # float32
    overlong_spans: int  # spans left out because no window holds them
    apart_pairs: int  # pairs left out because no window holds both entities
    overlapping_pairs: int  # pairs left out because their entities overlap, as only given ones do


@dataclass(frozen=True)
class _Read:
    """A batch behind the encoder."""

    cls_QD: Tensor
    tables: WordTables
    context_tables: WordTables  # of the encoder of L, M and R
    tag_logits_G5: Tensor
    anchor: Tensor


class JointModel(nn.Module):
    """Detection, typing and relation heads around a pre-trained span pair encoder."""

    def __init__(
        self,
        spe: SpeModel,
        labels: Labels,
        relation_size: int = 128,
        dropout: float = 0.1,
        kernels: str = "auto",
        own_context_encoder: bool = True,
        features: Features | None = None,
    ):
        """The parts of `spe` are used, not copied; a contrastive head is left out. Heads start as METHOD says.

        `own_context_encoder`: L, M and R of a pair have a span encoder of their own, as in the authors' released code;
        it starts as a copy of that of the entities. `features`: what the heads read beside the paper's vectors.
        `dropout` is that of the heads and, as in the authors' released code, of the encoder's states before all heads.

        Raises:
            ConfigError: `spe` lacks a span encoder or a span pair encoder.
        """
        super().__init__()
        if spe.span_encoder is None or spe.pair_encoder is None:
            raise ConfigError(
                "extraction needs a span encoder and a span pair encoder, and this model lacks one (it was pre-trained "
                "without CSPO); start from its Transformer alone"
            )
        self.spe = SpeModel(spe.encoder, spe.span_encoder, spe.pair_encoder)
        self.labels = labels
        span_size = spe.span_encoder.mlp.linear.out_features
        self.state_dropout = Dropout(dropout, site=1)  # 0 is the embeddings'
        self.detection_head = nn.Linear(spe.encoder.config.hidden_size, len(TAGS))
        features = features or Features()
        self.span_features = SpanFeatures(features, spe.encoder.config.hidden_size)
        self.pair_features = PairFeatures(features, span_size, labels.entity_classes)
        self.typing_head = nn.Linear(span_size + self.span_features.size, labels.entity_classes)
        self.relation_head = nn.Sequential(
            Mlp(span_size + self.pair_features.size, span_size, dropout, kernels, site=1),  # 0 is the pair encoder's
            Mlp(span_size, relation_size, dropout, kernels, site=2),
            nn.Linear(relation_size, labels.relation_classes),
        )
        self.detection_head.apply(initialize)
        self.typing_head.apply(initialize)
        self.relation_head.apply(initialize)
        self.context_encoder = copy.deepcopy(spe.span_encoder) if own_context_encoder else None

    def forward(self, batch: ExtractionBatch, gold_entities_B: Tensor) -> JointOutputs:
        """Losses; `gold_entities_B` (bool): sentences whose relation candidates are pairs of gold entities."""
        assert gold_entities_B.shape[0] == batch.n_examples
        read = self._read(batch)
        log_probs_G5 = _log_probs(read.tag_logits_G5.detach())
        tags_G = best_tags(log_probs_G5, batch.sentence_borders_B1, batch.max_words)
        predicted = predicted_spans(batch, *spans_of_tags(tags_G))
        spans, gold = typing_candidates(batch, predicted)
        vectors_SH, type_logits_SY, typing_anchor = self._type(batch, read, spans)

        takes_gold_S, found_S = gold_entities_B[spans.sentence_S], type_logits_SY.detach().argmax(1).cpu()
        is_entity_S = torch.where(takes_gold_S, gold.class_S > 0, gold.is_predicted_S & (found_S > 0))
        pairs, class_P = with_gold_pairs(batch, spans, gold, self._pairs(batch, spans, is_entity_S))
        known_S = torch.where(takes_gold_S | (found_S == 0), gold.class_S, found_S)
        relation_logits_PZ, relation_anchor = self._classify(batch, read, spans, vectors_SH, known_S, pairs)
        type_label_S, relation_label_P = send([gold.class_S, class_P], batch.device)
        terms = {
            "detection": classification(read.tag_logits_G5, batch.tags_G),
            "typing": classification(type_logits_SY, type_label_S),
            "relation": classification(relation_logits_PZ, relation_label_P),
        }
        return JointOutputs(terms, read.anchor + typing_anchor + relation_anchor)

    def predict(
        self, batch: ExtractionBatch, given_entities: bool = False, thresholds: Thresholds = ARGMAX
    ) -> BatchPrediction:
        """Entities and relations of a batch, as the thresholds choose them; call in eval mode.

        Gold in the batch is not looked at, unless `given_entities`: then its spans are the entities, whatever the model
        would find, and relations are those between them. They have no class, and the probability 1.
        """
        return self.predict_each(batch, (thresholds,), given_entities)[0]

    @torch.no_grad()
    def predict_each(
        self, batch: ExtractionBatch, choices: Sequence[Thresholds], given_entities: bool = False
    ) -> list[BatchPrediction]:
        """`predict` for each of several thresholds; the encoder reads the batch once."""
        read = self._read(batch)
        return [self._chosen(batch, read, given_entities, thresholds) for thresholds in choices]

    def _chosen(
        self, batch: ExtractionBatch, read: _Read, given_entities: bool, thresholds: Thresholds
    ) -> BatchPrediction:
        """What `predict` gives, from what was read."""
        if given_entities:
            spans = predicted_spans(batch, batch.entity_start_E, batch.entity_end_E)
            vectors_SH, type_logits_SY, _ = self._type(batch, read, spans)
            class_S, probability_S = torch.zeros(spans.count, dtype=torch.int64), torch.ones(spans.count)
            given_S = given_classes(batch, spans)
            known_S = torch.where(given_S > 0, given_S, 1 + type_logits_SY[:, 1:].argmax(1).cpu())
            is_entity_S = torch.ones(spans.count, dtype=torch.bool)
        else:
            log_probs_G5 = _log_probs(read.tag_logits_G5)
            spans, span_probability_S = candidate_spans(batch, log_probs_G5, thresholds.entities)
            vectors_SH, type_logits_SY, _ = self._type(batch, read, spans)
            type_probability_SY = torch.softmax(type_logits_SY.float(), dim=1).cpu()
            is_entity_S, class_S, probability_S = choose_entities(
                spans, span_probability_S, type_probability_SY, thresholds.entities
            )
            known_S = class_S
        pairs = self._pairs(batch, spans, is_entity_S)
        relation_class_P, relation_probability_P = self._relations(
            batch, read, spans, vectors_SH, known_S, pairs, thresholds.relations
        )

        entity_of_S = torch.cumsum(is_entity_S, 0) - 1
        entities, relations = (torch.nonzero(found).squeeze(1) for found in (is_entity_S, relation_class_P > 0))
        sentence_E = spans.sentence_S[entities]
        before_E = batch.sentence_borders_B1[sentence_E]
        return BatchPrediction(
            entity_sentence_E=sentence_E,
            entity_start_E=spans.start_S[entities] - before_E,
            entity_end_E=spans.end_S[entities] - before_E,
            entity_class_E=class_S[entities],
            entity_probability_E=probability_S[entities],
            relation_first_R=entity_of_S[pairs.first_P[relations]],
            relation_second_R=entity_of_S[pairs.second_P[relations]],
            relation_class_R=relation_class_P[relations],
            relation_probability_R=relation_probability_P[relations],
            overlong_spans=spans.overlong,
            apart_pairs=pairs.apart,
            overlapping_pairs=pairs.overlapping,
        )

    def _read(self, batch: ExtractionBatch) -> _Read:
        """Encoder, tag scores, and what span vectors are made of."""
        assert self.spe.span_encoder is not None
        encoder = self.spe.encoder
        n_sequences = batch.n_sequences
        kept_N = torch.cat([batch.cu_seqlens_Q1[:-1].long(), batch.first_piece_W])
        keys, keys_W = batch.dropout_keys, None
        if keys is not None:
            keys_T = token_keys(keys.key_Q, batch.cu_seqlens_Q1, batch.positions_T)
            keys_W = keys_T.index_select(0, batch.first_piece_W)
        states_ND = encoder(batch.piece_ids_T, batch.positions_T, batch.cu_seqlens_Q1, batch.max_seqlen, kept_N, keys)
        cls_QD, word_states_WD = states_ND[:n_sequences], self.state_dropout(states_ND[n_sequences:], keys_W)
        anchor = states_ND.new_zeros(())
        if batch.n_words == 0:  # a [CLS] in place of words: every rank calls every module
            tag_logits_15 = self.detection_head(cls_QD[:1])
            word_states_WD, tag_logits_G5, anchor = cls_QD[:1], tag_logits_15[:0], 0.0 * tag_logits_15.float().sum()
        elif batch.max_windows == 1:
            tag_logits_G5 = self.detection_head(word_states_WD)
        else:
            tag_logits_G5 = self.detection_head(word_states_WD.index_select(0, batch.own_word_G))
        if encoder.pooler is not None:
            cls_QD = encoder.pooler(cls_QD)
        cls_QD = self.state_dropout(cls_QD, None if keys is None else keys.key_Q)
        tables = self.spe.span_encoder.word_tables(word_states_WD)
        own = self.context_encoder
        return _Read(cls_QD, tables, tables if own is None else own.word_tables(word_states_WD), tag_logits_G5, anchor)

    def _type(self, batch: ExtractionBatch, read: _Read, spans: Spans) -> tuple[Tensor, Tensor, Tensor]:
        """(span vectors [S, H], scores [S, Y], anchor)."""
        assert self.spe.span_encoder is not None
        if spans.count == 0:
            none_1 = batch.word_borders_Q1[:1]
            vectors_1H = self.spe.span_encoder.free_spans(read.tables, none_1, none_1)
            logits_1Y = self.typing_head(self.span_features(vectors_1H, read.cls_QD, none_1, none_1))
            return vectors_1H[:0], logits_1Y[:0], 0.0 * logits_1Y.float().sum()
        start_S, end_S = in_windows(batch, spans.window_S, spans.start_S, spans.end_S)
        vectors_SH = self.spe.span_encoder.free_spans(read.tables, start_S, end_S, span_keys(batch, start_S, end_S))
        widths_S = spans.end_S - spans.start_S
        logits_SY = self.typing_head(self.span_features(vectors_SH, read.cls_QD, widths_S, spans.window_S))
        return vectors_SH, logits_SY, logits_SY.new_zeros(())

    def _pairs(self, batch: ExtractionBatch, spans: Spans, is_entity_S: Tensor) -> Pairs:
        """The pairs of entities to classify; none where no type of relation is known."""
        return all_pairs(batch, spans, is_entity_S if self.labels.relation_types else torch.zeros_like(is_entity_S))

    def _classify(
        self, batch: ExtractionBatch, read: _Read, spans: Spans, vectors_SH: Tensor, known_S: Tensor, pairs: Pairs
    ) -> tuple[Tensor, Tensor]:
        """(scores [P, Z], anchor). `known_S`: the classes that spans are known by, for `PairFeatures`."""
        assert self.spe.span_encoder is not None and self.spe.pair_encoder is not None
        context_encoder = self.spe.span_encoder if self.context_encoder is None else self.context_encoder
        five = cut_in_five(batch, spans, pairs)
        entities_U = five.entity_start_U, five.entity_end_U
        contexts_V = five.context_start_V, five.context_end_V
        vectors_UH = self.spe.span_encoder.free_spans(read.tables, *entities_U, span_keys(batch, *entities_U))
        vectors_VH = context_encoder.free_spans(read.context_tables, *contexts_V, context_keys(batch, *contexts_V))
        row_PF, window_P, keys_P = five.row_PF, pairs.window_P, pair_keys(batch, spans, pairs)
        both_P2 = torch.stack([pairs.first_P, pairs.second_P], dim=1)
        class_P2, width_P2 = known_S[both_P2], (spans.end_S - spans.start_S)[both_P2]
        if pairs.count == 0:  # a pair of five empty spans
            row_PF, window_P = row_PF.new_full((1, 5), spans.count), row_PF.new_zeros(1)
            class_P2, width_P2 = row_PF.new_zeros(1, 2), row_PF.new_zeros(1, 2)
        row_PF, window_P = send([row_PF, window_P], batch.device)
        all_vectors = torch.cat([vectors_SH, vectors_UH, vectors_VH])
        vectors_PH = self.spe.pair_encoder.free_pairs(all_vectors, read.cls_QD, row_PF, window_P, keys_P)
        vectors_PH = self.pair_features(vectors_PH, all_vectors, row_PF, class_P2, width_P2)
        first, second, scores = self.relation_head
        logits_PZ = scores(second(first(vectors_PH, keys_P), keys_P))
        if pairs.count == 0:
            return logits_PZ[:0], 0.0 * logits_PZ.float().sum()
        return logits_PZ, logits_PZ.new_zeros(())

    def _relations(
        self,
        batch: ExtractionBatch,
        read: _Read,
        spans: Spans,
        vectors_SH: Tensor,
        known_S: Tensor,
        pairs: Pairs,
        threshold: float | None,
    ) -> tuple[Tensor, Tensor]:
        """(class [P], probability [P]) on the CPU, classified some pairs at a time."""
        best = []
        for part in _parts(pairs):
            logits_PZ, _ = self._classify(batch, read, spans, vectors_SH, known_S, part)
            class_P, probability_P = choose_relations(torch.softmax(logits_PZ.float(), dim=1), threshold)
            best.append(torch.stack([class_P.float(), probability_P]))
        class_P, probability_P = torch.cat(best, dim=1).cpu()
        return class_P.long(), probability_P


def _parts(pairs: Pairs) -> Iterator[Pairs]:
    for first in range(0, max(pairs.count, 1), PAIRS_AT_ONCE):
        part = slice(first, first + PAIRS_AT_ONCE)
        yield Pairs(pairs.first_P[part], pairs.second_P[part], pairs.window_P[part], pairs.overlapping, pairs.apart)


def _log_probs(logits_G5: Tensor) -> Tensor:
    """Log-probabilities of the tags [G, 5], on the CPU."""
    return torch.log_softmax(logits_G5.float(), dim=1).cpu()
