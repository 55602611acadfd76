"""A small joint model, random sentences with gold, and the plain forms that the fast path is compared with."""

import itertools

import numpy as np
import torch
from transformers import BertConfig

from spe_dist.config.pretraining import Config, ModelConfig
from spe_dist.data.text.vocabulary import tokenizer_from_pieces
from spe_dist.extraction.corpora.corpus import Entity, Labels, Relation, Sentence
from spe_dist.extraction.joint.model import JointModel
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.start.build import build_spe_model

LABELS = Labels(("loc", "org", "per"), ("in", "of"))
WORDS = [f"w{i}" for i in range(40)]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##a", "##b"]
SIZES = {"cnn_channels": 6, "span_size": 10, "attention_size": 7, "position_size": 4}


def tokenizer():
    return tokenizer_from_pieces(PIECES, do_lower_case=True)


def build_model(
    seed=0, dropout=0.0, cls_source="state", labels=LABELS, spread=8.0, own_context=True, features=None
) -> JointModel:
    """A 2 x 16 model in float64 whose weights are far from their start, so that all classes are predicted."""
    torch.manual_seed(seed)
    bert = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    config = Config(model=ModelConfig(dropout=dropout, cls_source=cls_source, **SIZES))
    spe = build_spe_model(config, PackedBertEncoder(bert))
    model = JointModel(spe, labels, 8, dropout, own_context_encoder=own_context, features=features)
    if model.context_encoder is not None:
        model.context_encoder.draw()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(spread)
    return model.double()


def random_sentence(rng: np.random.Generator, n_words: int, n_entities: int, n_relations: int) -> Sentence:
    """Entities may overlap, repeat a span with another type, and relate to themselves."""
    words = tuple(rng.choice(WORDS) + rng.choice(["", "", "a", "ab"]) for _ in range(n_words))
    entities = []
    for _ in range(n_entities if n_words else 0):
        start = int(rng.integers(n_words))
        end = min(n_words, start + 1 + int(rng.integers(4)))
        entities.append(Entity(start, end, str(rng.choice(LABELS.entity_types))))
    relations = [
        Relation(str(rng.choice(LABELS.relation_types)), *(entities[i] for i in rng.integers(len(entities), size=2)))
        for _ in range(n_relations if entities else 0)
    ]
    return Sentence(words, tuple(entities), tuple(relations), origin=f"line {n_words}")


def random_sentences(seed: int, lengths) -> list[Sentence]:
    rng = np.random.default_rng(seed)
    return [random_sentence(rng, n, int(rng.integers(0, 6)), int(rng.integers(0, 5))) for n in lengths]


class SlowReader:
    """The joint model as METHOD tells it: sentence by sentence, span by span, pair by pair, on copied words."""

    def __init__(self, model: JointModel, example):
        self.model, self.example = model, example
        self.windows = [self._encode(window) for window in example.windows]

    def _encode(self, window):
        encoder = self.model.spe.encoder
        ids = torch.tensor(window.piece_ids)
        borders = torch.tensor([0, len(ids)], dtype=torch.int32)
        states = encoder(ids, torch.arange(len(ids)), borders, len(ids))
        cls = states[0] if encoder.pooler is None else encoder.pooler(states[:1])[0]
        return states[torch.tensor(window.first_pieces, dtype=torch.int64)], cls

    def best_window(self, start, end):
        """The window in which words start..end stand farthest from a cut; None where none holds them."""
        best, best_margin = None, -1
        for number, window in enumerate(self.example.windows):
            if window.first_word <= start and end <= window.end_word:
                cuts = [start - window.first_word] if window.first_word else []
                cuts += [window.end_word - end] if window.end_word < self.example.n_words else []
                margin = min(cuts, default=10**6)
                if margin > best_margin:
                    best, best_margin = number, margin
        return best

    def tag_logits(self):
        rows = []
        for word in range(self.example.n_words):
            number = self.best_window(word, word + 1)
            states, _ = self.windows[number]
            rows.append(self.model.detection_head(states[word - self.example.windows[number].first_word]))
        return torch.stack(rows) if rows else torch.zeros(0, 5, dtype=torch.float64)

    def span_vector(self, number, start, end, span_encoder=None):
        states, _ = self.windows[number]
        first = self.example.windows[number].first_word
        words = states[start - first : end - first]
        return (span_encoder or self.model.spe.span_encoder)(words, torch.tensor([0, len(words)]))[0]

    def type_logits(self, start, end):
        number, features = self.best_window(start, end), self.model.span_features
        parts = [self.span_vector(number, start, end)]
        parts += [features.widths.weight[min(end - start, 10)]] if features.widths is not None else []
        parts += [self.windows[number][1]] if features.has_cls else []
        return self.model.typing_head(torch.cat(parts))

    def relation_logits(self, first, second, classes=(0, 0)):
        number = self.best_window(first[0], second[1])
        window = self.example.windows[number]
        borders = [window.first_word, *first, *second, window.end_word]
        encoders = itertools.cycle([self.model.context_encoder, self.model.spe.span_encoder])
        spans = zip(itertools.pairwise(borders), encoders, strict=False)
        five = torch.stack([self.span_vector(number, a, b, encoder) for (a, b), encoder in spans])
        pair, features = (
            self.model.spe.pair_encoder(five[None], self.windows[number][1][None]),
            self.model.pair_features,
        )
        parts = [pair[0], *(five[column] for column in features.columns)]
        parts += [features.types.weight[i] for i in classes] if features.types is not None else []
        if features.widths is not None:
            parts += [features.widths.weight[min(end - start, 10)] for start, end in (first, second)]
        return self.model.relation_head(torch.cat(parts)[None])[0]
