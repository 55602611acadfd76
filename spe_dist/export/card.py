"""The README.md of an exported folder, which the hub shows as its model card: what it is, where from, how to load it.

The texts stand in `templates/`. Nothing in a card is a path of the machine that it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spe_dist import __version__
from spe_dist.data.text.languages import AUTO
from spe_dist.export.parts import POOLER, SPE, Parts

TAGS = ("bert", "span-pair-encoder", "information-extraction", "relation-extraction", "named-entity-recognition")
BASE_MODEL = "base_model"  # in the facts: the name on the hub of what training started from
_POOLER = {
    "trained": "trained with SPE (it gives h_cls)",
    "start": "taken over unchanged from the encoder that pre-training started from; SPE did not use it",
    "untrained": "untrained: seeded random weights, because the start had none",
}


def model_card(parts: Parts) -> str:
    """The card of an exported encoder, Markdown with the hub's YAML header."""
    objectives = [name for name in ("tbo", "spo", "cspo", "mlm") if parts.settings.get(name)]
    facts = {
        "encoder": "query (trained by gradient)" if parts.encoder == "query" else "key (momentum average)",
        "sentence encoder": sentence_encoder(parts),
        "objectives": ", ".join(name.upper() for name in objectives),
        "pooler": _POOLER[parts.pooler_origin],
        **({} if parts.language == AUTO else {"language of the text": parts.language}),
        **readable(parts),
    }
    return render_card(
        "encoder.md",
        header=header(parts, library_name="transformers", pipeline_tag="feature-extraction"),
        facts=facts,
        modules=_modules(parts),
        settings=parts.settings,
    )


def render_card(template: str, **values: Any) -> str:
    """A card from one of the templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("spe_dist.export"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(template).render(version=__version__, **values)


def header(parts: Parts, **fields: Any) -> str:
    """The YAML block that the hub reads; the licence is that of SPE-dist, for the publisher to change."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(license="apache-2.0", tags=list(TAGS), base_model=parts.facts.get(BASE_MODEL), **fields)
    return f"---\n{data.to_yaml()}\n---\n"


def sentence_encoder(parts: Parts) -> str:
    """The encoder's sizes in words."""
    bert = parts.bert_config
    return (
        f"{bert['num_hidden_layers']} layers x {bert['hidden_size']}, {bert['num_attention_heads']} heads, "
        f"{bert['vocab_size']} pieces"
    )


def readable(parts: Parts, without: Sequence[str] = ()) -> dict[str, Any]:
    """The facts of an export as rows for people."""
    left_out = {BASE_MODEL, *without}
    return {name.replace("_", " "): value for name, value in parts.facts.items() if name not in left_out}


def _modules(parts: Parts) -> list[str]:
    """Names of the modules with weights, in the file's order, the pooler beside SPE not among them."""
    names = [k.removeprefix(SPE).split(".")[0] for k in parts.weights if not k.startswith(POOLER)]
    return list(dict.fromkeys(names))
