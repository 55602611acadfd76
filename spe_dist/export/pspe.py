"""Checkpoints of the predecessor's public code (Receiling/PSPE), read into our modules.

The facts, as its released code has them:

File. `torch.save` of the whole model's state_dict (torch 1.4: the old, unzipped format). Two encoders of one class
stand in it under `span_pair_encoder.` and `momentum_span_pair_encoder.`; each has every part, heads included. The
queues are Python lists and not in the file. Neither the attention heads nor dropout, activations and LayerNorm's
epsilon are in it.

Sentence encoder. transformers 2.8's BertModel, attention over pieces that are not piece 0, token type 0. Words are the
state of their first piece. The `query` of the span pair attention is BERT's pooler output, tanh included.

Span encoder. The words of a span stand from the last to the first, zeros behind them up to the widest span of the batch
and one more. Conv1d adds a kernel's width of zeros on both sides. GELU comes before the maximum, which runs over all
windows: those that overlap the span, and always one that sees only zeros and gives GELU(bias), all that an empty span
has. So the batch's padding changes nothing, and a kernel flipped end to end reads the span in its natural order.
`ent2hidden` follows.

The block (`ent2hidden`, `entity_span_mlp`, `masked_token_mlp`, `mlp_head1`, `mlp_head2`): Linear, GELU (the exact one,
erf), LayerNorm (biased variance, eps 1e-12 inside the root), dropout.

Span pair encoder. Four projections without bias: of the span vectors (behind `ent2hidden`), of the query, of the two
position embeddings joined (to s1 first), and of GELU of their sum to a score; softmax over L, s1, M, s2, R without a
mask; the weighted sum of the span vectors, dropout. One table of 7 rows serves both positions, row = relative position
+ 3: rows 2 3 4 5 6 to s1, 0 1 2 3 4 to s2. `mlp_head1` and `mlp_head2` follow for queries and keys; both give the
hidden size.

Token boundary. [state of the word's first piece ; row of `global_position_embedding` for the offset, 1 = second piece],
the block, a decoder without bias plus `masked_token_decoder_bias`. The decoder always has 28,996 rows, also where the
vocabulary has not. No label smoothing; the mean over a view's targets.

Span permutation. The same span vector, the block `entity_span_mlp`, `hidden2label` with bias to 6 orders, numbered as
itertools.permutations numbers (first word, middle, last word).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig

from spe_dist.config.pretraining import Config
from spe_dist.data.text.vocabulary import load_tokenizer
from spe_dist.errors import CheckpointError, ConfigError, DataError
from spe_dist.export.parts import ENCODER, POOLER, Encoder, Parts, exported_settings, seeded_pooler
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.heads import PERMUTATIONS
from spe_dist.model.pair import FARTHEST
from spe_dist.utils.reading.files import check_file
from spe_dist.utils.wording import one_line

PREFIXES: Mapping[Encoder, str] = {"query": "span_pair_encoder.", "key": "momentum_span_pair_encoder."}
WRAPPERS = ("state_dict", "model_state_dict", "model")
BERT = "bert_encoder.bert_model."
CONVOLUTIONS = "spe.span_encoder.conv_layers."
CONV = re.compile(r"entity_span_extractor\.cnn_encoder\.conv_layer_(\d+)\.(weight|bias)")
NOT_A_WEIGHT = re.compile(r"(^|[._])(position_ids|token_type_ids|queue\w*|ptr|qid)$")
HEAD_SIZE = 64  # dims of an attention head in every published BERT
USUAL_VOCABULARY = {28_996: "bert-base-cased"}

# What each of our parts is made of: their name, ours. A name ending in "." stands for a block, else for one tensor.
PARTS: Mapping[str, Mapping[str, str]] = {
    "span encoder": {"ent2hidden.": "spe.span_encoder.mlp."},
    "span pair encoder": {
        "position_embedding.weight": "spe.pair_encoder.position_embedding.weight",
        "attention_encoder.input_linear.weight": "spe.pair_encoder.input_linear.weight",
        "attention_encoder.query_linear.weight": "spe.pair_encoder.query_linear.weight",
        "attention_encoder.feature_linear.weight": "spe.pair_encoder.feature_linear.weight",
        "attention_encoder.score_linear.weight": "spe.pair_encoder.score_linear.weight",
    },
    "contrastive head": {
        "mlp_head1.": "spe.contrastive_head.layers.0.",
        "mlp_head2.": "spe.contrastive_head.layers.1.",
    },
    "token boundary head": {
        "global_position_embedding.weight": "tbo_head.offset_embedding.weight",
        "masked_token_mlp.": "tbo_head.mlp.",
        "masked_token_decoder.weight": "tbo_head.decoder.weight",
        "masked_token_decoder_bias": "tbo_head.decoder.bias",
    },
    "permutation head": {
        "entity_span_mlp.": "spo_head.mlp.",
        "entity_span_decoder.hidden2label.weight": "spo_head.decoder.weight",
        "entity_span_decoder.hidden2label.bias": "spo_head.decoder.bias",
    },
}
BLOCK = ("linear.weight", "linear.bias", "layer_norm.weight", "layer_norm.bias")


def read_pspe(
    file: str | Path, encoder: Encoder = "query", attention_heads: int | None = None, tokenizer: str | None = None
) -> Parts:
    """One of the two encoders of the predecessor's checkpoint, as parts of ours that give its numbers.

    `attention_heads` (default: hidden size / 64) is not in the file. `tokenizer` (name, folder or vocab.txt) must
    have the checkpoint's number of pieces; without it bert-base-cased is taken where its number fits and it can be
    loaded, else none. Raises CheckpointError, ConfigError or DataError.
    """
    weights = select_encoder(read_state_dict(Path(file)), encoder, Path(file))
    converted = convert_bert(weights) | convert_span_encoder(weights)
    found = set()
    for part, names in PARTS.items():
        own = convert_part(weights, part, names)
        found |= {part} if own else set()
        converted |= own
    if weights:
        raise CheckpointError(
            f"{file}: unknown weights {', '.join(sorted(weights)[:4])}; without them the numbers would be others"
        )
    check_sizes(converted, found)
    bert_config = bert_config_of(converted, attention_heads)
    check_whole(converted, bert_config)
    settings = settings_of(converted, found, bert_config)
    used = "span pair encoder" in found
    carried = [] if used else [name for name in converted if name.startswith(POOLER)]
    pooler = {name.removeprefix(ENCODER): converted.pop(name) for name in carried}
    if not used and not pooler:
        pooler = seeded_pooler(bert_config.to_dict(), seed=0)
    return Parts(
        weights=converted,
        settings=settings,
        bert_config=bert_config.to_dict(),
        pooler=pooler,
        pooler_origin="trained" if used else "start" if carried else "untrained",
        tokenizer=find_tokenizer(tokenizer, bert_config.vocab_size),
        encoder=encoder,
        facts={"imported_from": f"{Path(file).name}, a checkpoint of Receiling/PSPE"},
    )


def read_state_dict(file: Path) -> dict[str, Any]:
    """The tensors of a checkpoint by name, wrappers and DataParallel's `module.` taken off. No code is run."""
    check_file(file, CheckpointError)
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist; give the predecessor's checkpoint file") from None
    except IsADirectoryError:
        raise CheckpointError(f"{file} is a folder; give the predecessor's checkpoint file itself") from None
    except pickle.UnpicklingError:  # torch's own text advises to switch this protection off
        raise CheckpointError(
            f"{file} is not a file of torch.save with tensors only; save the model's state_dict(), not the model"
        ) from None
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{file} cannot be read as a torch checkpoint ({one_line(error)}); it may be cut off"
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file} holds a {type(loaded).__name__}, not a state_dict of named tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in loaded.items()}


def select_encoder(state: dict[str, Any], encoder: Encoder, file: Path) -> dict[str, Tensor]:
    """Float32 weights of the trained or the momentum encoder by the predecessor's names, its prefix taken off."""
    prefix = PREFIXES[encoder]
    weights = {
        name.removeprefix(prefix)
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias"): tensor.float()
        for name, tensor in state.items()
        if name.startswith(prefix) and isinstance(tensor, Tensor) and not NOT_A_WEIGHT.search(name)
    }
    if weights:
        return weights
    if encoder == "key" and any(name.startswith(PREFIXES["query"]) for name in state):
        raise CheckpointError(f"{file} has no momentum encoder (no {prefix}*); export it with --encoder query")
    kinds = sorted({name.split(".")[0] for name in state})
    hint = "; it is a fine-tuned extraction model" if {"ent_model", "rel_model"} & set(kinds) else ""
    raise CheckpointError(
        f"{file} is not a pre-training checkpoint of the predecessor: no weights under {prefix}, but under "
        f"{', '.join(kinds[:4]) or 'nothing'}{hint}"
    )


def convert_bert(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sentence encoder's weights by our names, taken out of `weights`."""
    if any(name.startswith("bert_encoder.mlp.") for name in weights):
        raise CheckpointError("the checkpoint has an MLP on the encoder's states (bert_output_size > 0), SPE has none")
    bert = {name.removeprefix(BERT): weights.pop(name) for name in list(weights) if name.startswith(BERT)}
    if "embeddings.word_embeddings.weight" not in bert:
        raise CheckpointError(f"the checkpoint has no sentence encoder (no {BERT}embeddings.word_embeddings.weight)")
    return {f"{ENCODER}{name}": tensor for name, tensor in bert.items()}


def convert_span_encoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions by our names, their kernels flipped end to end: the predecessor reads spans from the right."""
    converted = {}
    for name in list(weights):
        match = CONV.fullmatch(name)
        if match:
            tensor = weights.pop(name)
            converted[f"{CONVOLUTIONS}{match[1]}.{match[2]}"] = tensor.flip(2) if match[2] == "weight" else tensor
    return converted


def convert_part(weights: dict[str, Tensor], part: str, names: Mapping[str, str]) -> dict[str, Tensor]:
    """One part by our names, taken out of `weights`; empty where the checkpoint has nothing of it."""
    pairs = [
        (theirs + tail, ours + tail)
        for theirs, ours in names.items()
        for tail in (BLOCK if theirs.endswith(".") else ("",))
    ]
    missing = [theirs for theirs, _ in pairs if theirs not in weights]
    if len(missing) == len(pairs):
        return {}
    if missing:
        raise CheckpointError(f"the checkpoint's {part} is not complete: {', '.join(missing[:4])} missing")
    return {ours: weights.pop(theirs) for theirs, ours in pairs}


def check_sizes(converted: Mapping[str, Tensor], found: set[str]) -> None:
    """CheckpointError for what our modules cannot stand for."""
    convolutions = [n for n in converted if n.startswith(CONVOLUTIONS) and n.endswith("weight")]
    if bool(convolutions) != ("span encoder" in found):
        raise CheckpointError(
            "the checkpoint has only one of the span encoder's halves (convolutions, ent2hidden); ent_output_size=0 is "
            "not supported"
        )
    needs_spans = sorted(found & {"span pair encoder", "permutation head"})
    if needs_spans and not convolutions:
        raise CheckpointError(f"the checkpoint has a {needs_spans[0]} but no span encoder for it")
    if "contrastive head" in found and "span pair encoder" not in found:
        raise CheckpointError("the checkpoint has a contrastive head but no span pair encoder for it")
    if "span pair encoder" in found and f"{POOLER}dense.weight" not in converted:
        raise CheckpointError("the checkpoint's BERT has no pooler, which the span pair attention reads")
    if len({converted[name].shape[0] for name in convolutions}) > 1:
        raise CheckpointError("the checkpoint's convolutions have unlike numbers of filters, which is not supported")
    for name, rows in (
        ("spe.pair_encoder.position_embedding.weight", 2 * FARTHEST + 1),
        ("spo_head.decoder.weight", PERMUTATIONS),
    ):
        if name in converted and converted[name].shape[0] != rows:
            raise CheckpointError(f"{name} of the checkpoint has {converted[name].shape[0]} rows, {rows} are supported")


def check_whole(converted: Mapping[str, Tensor], bert_config: BertConfig) -> None:
    """CheckpointError where weights of the sentence encoder or the convolutions are missing or of unlike sizes."""
    with torch.device("meta"):  # sizes only
        bert = PackedBertEncoder(bert_config).state_dict()
    expected = {f"{ENCODER}{name}": tensor.shape for name, tensor in bert.items()}
    found = {name: tensor.shape for name, tensor in converted.items() if name.startswith(ENCODER)}
    pooler_missing = not any(name.startswith(POOLER) for name in found)
    missing = [n for n in expected if n not in found and not (pooler_missing and n.startswith(POOLER))]
    convolutions = {name.rpartition(".")[0] for name in converted if name.startswith(CONVOLUTIONS)}
    numbered = [f"{CONVOLUTIONS}{index}" for index in range(len(convolutions))]
    missing += [f"{n}.{kind}" for n in numbered for kind in ("weight", "bias") if f"{n}.{kind}" not in converted]
    if missing:
        raise CheckpointError(
            f"the checkpoint is not complete: {', '.join(missing[:4])} missing ({len(missing)} tensors, by our names); "
            "fetch or save it again"
        )
    unlike = [
        f"{n} is {list(found[n])}, not {list(expected[n])}" for n in expected if n in found and found[n] != expected[n]
    ]
    unlike += [f"{name} is unknown" for name in found if name not in expected]
    if unlike:
        raise CheckpointError(f"the BERT weights have unexpected shapes: {'; '.join(unlike[:3])}")


def bert_config_of(converted: Mapping[str, Tensor], attention_heads: int | None) -> BertConfig:
    """The sentence encoder's config from its tensors. ConfigError where the number of heads is not possible."""

    def rows(name: str) -> int:
        if f"{ENCODER}{name}" not in converted:
            raise CheckpointError(f"the checkpoint is not complete: its BERT has no {name}; fetch or save it again")
        return converted[f"{ENCODER}{name}"].shape[0]

    vocabulary, hidden = converted[f"{ENCODER}embeddings.word_embeddings.weight"].shape
    layers = {int(m[1]) for name in converted if (m := re.match(r"spe\.encoder\.encoder\.layer\.(\d+)\.", name))}
    if not layers or layers != set(range(len(layers))):
        raise CheckpointError(f"the checkpoint's BERT has layers {sorted(layers)}: some are missing")
    if attention_heads is None and hidden % HEAD_SIZE:
        raise ConfigError(
            f"the hidden size {hidden} is not a multiple of {HEAD_SIZE}, so the number of attention heads cannot be "
            "guessed; give --attention_heads"
        )
    heads = hidden // HEAD_SIZE if attention_heads is None else attention_heads
    if heads < 1 or hidden % heads:
        raise ConfigError(f"attention_heads={heads} does not divide the hidden size {hidden}; give another number")
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=len(layers),
        num_attention_heads=heads,
        intermediate_size=rows("encoder.layer.0.intermediate.dense.weight"),
        max_position_embeddings=rows("embeddings.position_embeddings.weight"),
        type_vocab_size=rows("embeddings.token_type_embeddings.weight"),
        layer_norm_eps=1e-12,
        hidden_act="gelu",
    )


def settings_of(converted: Mapping[str, Tensor], found: set[str], bert_config: BertConfig) -> dict[str, Any]:
    """ModelConfig's and ObjectiveConfig's leaves that build the same modules."""

    def size(name: str, axis: int) -> int | None:
        return converted[name].shape[axis] if name in converted else None

    kernels, index = [], 0
    while (width := size(f"{CONVOLUTIONS}{index}.weight", 2)) is not None:
        kernels.append(width)
        index += 1
    found_settings = {
        "hidden_size": bert_config.hidden_size,
        "layers": bert_config.num_hidden_layers,
        "attention_heads": bert_config.num_attention_heads,
        "intermediate_size": bert_config.intermediate_size,
        "cnn_kernels": kernels or None,
        "cnn_channels": size(f"{CONVOLUTIONS}0.weight", 0),
        "span_size": size("spe.span_encoder.mlp.linear.weight", 0),
        "attention_size": size("spe.pair_encoder.input_linear.weight", 0),
        "position_size": size("spe.pair_encoder.position_embedding.weight", 1),
        "tbo_offset_size": size("tbo_head.offset_embedding.weight", 1),
        "tbo_offset_rows": size("tbo_head.offset_embedding.weight", 0),
        "contrastive_size": size("spe.contrastive_head.layers.1.linear.weight", 0),
        "contrastive_head": "contrastive head" in found,
        "pair_activation": "gelu",
        "cls_source": "pooler" if "span pair encoder" in found else "state",
        "tbo": "token boundary head" in found,
        "spo": "permutation head" in found,
        "cspo": "span pair encoder" in found,
    }
    return exported_settings(Config()) | {name: value for name, value in found_settings.items() if value is not None}


def find_tokenizer(source: str | None, vocabulary: int) -> Any | None:
    """The tokenizer of `source`, checked against the vocabulary's size; None where none is given nor guessed."""
    if source is None:
        try:
            return load_tokenizer(USUAL_VOCABULARY[vocabulary])
        except (KeyError, DataError):
            return None
    tokenizer = load_tokenizer(source)
    if len(tokenizer) != vocabulary:
        raise ConfigError(
            f"tokenizer={source} has {len(tokenizer):,} pieces, the checkpoint {vocabulary:,}; give the tokenizer that "
            "the checkpoint was trained with"
        )
    return tokenizer
