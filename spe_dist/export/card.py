"""The README.md of an exported folder: what it is, where it is from, how to load it."""

from __future__ import annotations

from spe_dist.export.parts import POOLER, SPE, Parts

_POOLER = {
    "trained": "trained with SPE (it gives h_cls)",
    "start": "taken over unchanged from the encoder that pre-training started from; SPE did not use it",
    "untrained": "untrained: seeded random weights, because the start had none",
}


def model_card(parts: Parts) -> str:
    """Markdown text for people who find the folder."""
    bert, objectives = parts.bert_config, [n for n in ("tbo", "spo", "cspo") if parts.settings.get(n)]
    rows = {
        "encoder": "query (trained by gradient)" if parts.encoder == "query" else "key (momentum average)",
        "sentence encoder": f"{bert['num_hidden_layers']} layers x {bert['hidden_size']}, "
        f"{bert['num_attention_heads']} heads, {bert['vocab_size']} pieces",
        "objectives": ", ".join(name.upper() for name in objectives),
        "pooler": _POOLER[parts.pooler_origin],
        **{name.replace("_", " "): value for name, value in parts.facts.items()},
    }
    return _TEMPLATE.format(
        facts="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        spe_use=_spe_use(parts),
        modules=", ".join(f"`{name}`" for name in _modules(parts)),
        settings="\n".join(f"| `{name}` | {value} |" for name, value in parts.settings.items()),
    )


def _modules(parts: Parts) -> list[str]:
    """Names of the modules with weights, in the file's order, the pooler beside SPE not among them."""
    names = [k.removeprefix(SPE).split(".")[0] for k in parts.weights if not k.startswith(POOLER)]
    return list(dict.fromkeys(names))


def _spe_use(parts: Parts) -> str:
    modules = _modules(parts)
    lines = ["encoded = spe.encode([words], spans=[[(0, 2), (8, 9)]])", "encoded.word_states[0]      # [words, hidden]"]
    if "span_encoder" in modules:
        lines.append("encoded.span_vectors[0]     # [spans, span_size]")
    if "pair_encoder" in modules:
        lines.append("spe.encode_pair(words, (0, 2), (8, 9))  # [span_size]: the vector of one span pair")
    return "\n".join(lines)


_TEMPLATE = """# Span pair encoder (SPE)

A BERT encoder pre-trained for entity and relation extraction (Wang et al., EMNLP 2020), with its span encoder, span
pair encoder and heads beside it.

| | |
|---|---|
{facts}

## Use

As a plain BertModel, with nothing but transformers:

```python
from transformers import AutoModel, AutoTokenizer
model, tokenizer = AutoModel.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
```

With the span and pair vectors, in plain PyTorch (spans are half-open and count words):

```python
from spe_dist import SpanPairEncoder
spe = SpanPairEncoder.from_pretrained(FOLDER)
words = "Anna Berg of the city council moved to Lund .".split()
{spe_use}
```

To train on: `spe_dist.export.load_pretraining_model(FOLDER)` gives the whole pre-training model.

`model.safetensors` holds the sentence encoder by BertModel's names, `spe_heads.safetensors` the other parts. All
weights are float32. Modules: {modules}.

## Settings

| setting | value |
|---|---|
{settings}
"""
