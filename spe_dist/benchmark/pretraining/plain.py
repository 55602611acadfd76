"""The step of pre-training in its plain form: padded batches, loops, full matrices of similarities, eager updates.

What someone writes who knows BERT, MoCo and the paper, and no more: transformers' BertModel on padded views, each of
the five spans convolved in turn, one matrix of similarities to all keys, one small update a parameter. Parameter names
are those of `spe_dist.model`, so that weights go over as they are and losses can be compared.

Legend of the shape suffixes:
    B sentences, Q sequences, L longest sequence in tokens, S words of the longest span, D hidden size, H span size,
    C width of queries and keys, K keys of a queue
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from spe_dist.config.pretraining import Config
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.model.pair import POSITIONS_TO_S1, POSITIONS_TO_S2


class Mlp(nn.Module):
    """Linear, GELU, LayerNorm and dropout."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.linear, self.layer_norm = nn.Linear(inputs, outputs), nn.LayerNorm(outputs, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.layer_norm(F.gelu(self.linear(x))))


class SpanEncoder(nn.Module):
    """Convolutions over one span at a time, and their maximum."""

    def __init__(self, config: Config, hidden: int) -> None:
        super().__init__()
        model = config.model
        self.conv_layers = nn.ModuleList(
            nn.Conv1d(hidden, model.cnn_channels, width, padding=width) for width in model.cnn_kernels
        )
        self.dropout = nn.Dropout(model.dropout)
        self.mlp = Mlp(model.cnn_channels * len(model.cnn_kernels), model.span_size, model.dropout)

    def forward(self, words_QSD: Tensor) -> Tensor:
        """[Q, H]; words behind a span's end are zero."""
        maxima = [F.gelu(conv(words_QSD.transpose(1, 2))).amax(dim=2) for conv in self.conv_layers]
        return self.mlp(self.dropout(torch.cat(maxima, dim=1)))


class PairEncoder(nn.Module):
    """Attention over the five spans of one sentence at a time."""

    def __init__(self, config: Config, hidden: int) -> None:
        super().__init__()
        model = config.model
        self.position_embedding = nn.Embedding(7, model.position_size)
        self.input_linear = nn.Linear(model.span_size, model.attention_size, bias=False)
        self.query_linear = nn.Linear(hidden, model.attention_size, bias=False)
        self.feature_linear = nn.Linear(2 * model.position_size, model.attention_size, bias=False)
        self.score_linear = nn.Linear(model.attention_size, 1, bias=False)
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, spans: list[Tensor], cls_QD: Tensor) -> Tensor:
        scores = []
        for span_QH, to_s1, to_s2 in zip(spans, POSITIONS_TO_S1, POSITIONS_TO_S2, strict=True):
            places = torch.tensor([to_s1 + 3, to_s2 + 3], device=cls_QD.device)
            place = self.feature_linear(self.position_embedding(places).flatten())
            scores.append(self.score_linear(torch.tanh(self.input_linear(span_QH) + self.query_linear(cls_QD) + place)))
        weights_Q5 = torch.cat(scores, dim=1).softmax(dim=1)
        return self.dropout(sum(weights_Q5[:, i, None] * span_QH for i, span_QH in enumerate(spans)))


class Spe(nn.Module):
    """Encoder, span encoder, span pair encoder and contrastive head: f_q and f_k."""

    def __init__(self, config: Config, bert: BertConfig) -> None:
        super().__init__()
        model = config.model
        self.encoder = BertModel(bert, add_pooling_layer=False)
        self.span_encoder = SpanEncoder(config, bert.hidden_size)
        self.pair_encoder = PairEncoder(config, bert.hidden_size)
        self.contrastive_head = nn.Module()
        sizes = (model.span_size, model.contrastive_size, model.contrastive_size)
        layers = [Mlp(a, b, model.dropout) for a, b in itertools.pairwise(sizes)]
        self.contrastive_head.layers = nn.ModuleList(layers)

    def forward(self, batch: PackedBatch) -> tuple[Tensor, list[Tensor], Tensor]:
        """States of all tokens, unpadded, vectors of the five spans of each sequence, and what is compared [Q, C]."""
        lengths = batch.cu_seqlens_Q1.diff().tolist()
        ids_QL = nn.utils.rnn.pad_sequence(list(batch.piece_ids_T.split(lengths)), batch_first=True)
        real_QL = nn.utils.rnn.pad_sequence([ids_QL.new_ones(n) for n in lengths], batch_first=True)
        states_QLD = self.encoder(input_ids=ids_QL, attention_mask=real_QL).last_hidden_state
        states_TD = torch.cat([states_QLD[i, :n] for i, n in enumerate(lengths)])
        words_WD, borders = states_TD[batch.first_piece_W], batch.span_borders_S1.tolist()
        spans = []
        for place in range(5):
            words = [words_WD[borders[s] : borders[s + 1]] for s in range(place, len(borders) - 1, 5)]
            spans.append(self.span_encoder(nn.utils.rnn.pad_sequence(words, batch_first=True)))
        compared_QC = self.pair_encoder(spans, states_QLD[:, 0])
        for layer in self.contrastive_head.layers:  # type: ignore[union-attr]
            compared_QC = layer(compared_QC)
        return states_TD, spans, compared_QC


class PlainPretraining(nn.Module):
    """f_q with the heads of the other objectives."""

    def __init__(self, config: Config, bert: BertConfig) -> None:
        super().__init__()
        model, hidden = config.model, bert.hidden_size
        self.spe = Spe(config, bert)
        self.tbo_head, self.spo_head = nn.Module(), nn.Module()
        self.tbo_head.offset_embedding = nn.Embedding(model.tbo_offset_rows, model.tbo_offset_size)
        self.tbo_head.mlp = Mlp(hidden + model.tbo_offset_size, hidden, model.dropout)
        self.tbo_head.decoder = nn.Linear(hidden, bert.vocab_size)
        self.spo_head.mlp = Mlp(model.span_size, model.span_size, model.dropout)
        self.spo_head.decoder = nn.Linear(model.span_size, 6)


class PlainStep:
    """Trains on a batch of sentences at a time."""

    def __init__(self, config: Config, bert: BertConfig, device: torch.device, autocast: torch.dtype | None) -> None:
        self.config, self.device, self.autocast = config, device, autocast
        self.model: Any = PlainPretraining(config, bert).to(device).train()
        self.keys = copy.deepcopy(self.model.spe).requires_grad_(False).eval()
        size = config.model.contrastive_size
        self.queues = [F.normalize(torch.randn(config.moco.queue_keys, size, device=device), dim=1) for _ in range(2)]
        self.queue_ids = torch.full((config.moco.queue_keys,), -1, device=device)
        self.cursor = 0
        adam = config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=adam.learning_rate,
            betas=(adam.adam_beta1, adam.adam_beta2),
            eps=adam.adam_eps,
            weight_decay=adam.weight_decay,
            foreach=False,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)

    def __call__(self, batch: PackedBatch) -> dict[str, float]:
        """The mean loss of each objective, before the update."""
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            losses, keys = self.losses(batch)
        objectives = self.config.objectives
        loss = objectives.tbo_weight * losses["tbo"] + objectives.spo_weight * losses["spo"]
        loss = loss + objectives.cspo_weight * losses["cspo"]
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        momentum = self.config.moco.momentum
        with torch.no_grad():
            for key, query in zip(self.keys.parameters(), self.model.spe.parameters(), strict=True):
                key.mul_(momentum).add_(query, alpha=1 - momentum)
        self.enqueue(keys, batch.text_ids_B)
        return {name: float(value.detach()) for name, value in losses.items()}

    def losses(self, batch: PackedBatch) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """Losses, and span-pair and context keys [B, C]."""
        states_TD, spans, queries_QC = self.model.spe(batch)
        with torch.no_grad():
            keys_QC = self.keys(batch)[2]
        views = 2 * len(batch.sentence_ids_B)  # further sequences are permuted copies
        queries_QC, keys_QC = queries_QC[:views].float(), keys_QC[:views].float()
        if self.config.moco.normalize:
            queries_QC, keys_QC = F.normalize(queries_QC, dim=1), F.normalize(keys_QC, dim=1)
        (pair_queries, context_queries), (pair_keys, context_keys) = queries_QC.chunk(2), keys_QC.chunk(2)
        tbo, spo = self.model.tbo_head, self.model.spo_head
        words = torch.cat([states_TD[batch.tbo_first_piece_M], tbo.offset_embedding(batch.tbo_offset_M)], dim=1)
        permuted = torch.stack(spans, dim=1).flatten(0, 1)[batch.spo_span_P]
        pair = self.contrast(pair_queries, context_keys, self.queues[1], batch.text_ids_B)
        context = self.contrast(context_queries, pair_keys, self.queues[0], batch.text_ids_B)
        losses = {
            "tbo": F.cross_entropy(tbo.decoder(tbo.mlp(words)).float(), batch.tbo_label_M),
            "spo": F.cross_entropy(spo.decoder(spo.mlp(permuted)).float(), batch.spo_label_P),
            "cspo": (pair + context) / 2,
        }
        return losses, (pair_keys, context_keys)

    def contrast(self, queries_BC: Tensor, keys_BC: Tensor, queue_KC: Tensor, ids_B: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            queries_BC, keys_BC = queries_BC.float(), keys_BC.float()
            negative_BK = queries_BC @ queue_KC.T
            negative_BK = negative_BK.masked_fill(self.queue_ids[None] == ids_B[:, None], -torch.inf)
            logits = torch.cat([(queries_BC * keys_BC).sum(1, keepdim=True), negative_BK], dim=1)
            return F.cross_entropy(logits / self.config.moco.temperature, torch.zeros_like(ids_B))

    @torch.no_grad()
    def enqueue(self, keys: tuple[Tensor, Tensor], ids_B: Tensor) -> None:
        slots = (self.cursor + torch.arange(len(ids_B), device=self.device)) % len(self.queue_ids)
        for queue_KC, keys_BC in zip(self.queues, keys, strict=True):
            queue_KC[slots] = keys_BC.float()
        self.queue_ids[slots] = ids_B
        self.cursor = (self.cursor + len(ids_B)) % len(self.queue_ids)
