"""The model card of a fine-tuned folder: what it finds, how well, on what it was trained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from spe_dist.export.card import header, readable, render_card, sentence_encoder
from spe_dist.export.parts import Parts
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.extraction.scoring.matching import METRICS
from spe_dist.extraction.scoring.scores import Scores
from spe_dist.utils.files import shared_name

SCORES = "scores"  # in the facts: {split: {"corpus": name, metric: F1 as a fraction}}; metrics without gold are missing
SPLITS = {"dev": "validation", "test": "test"}  # the hub's names
TITLES = {"entity": "Entity F1", "relation": "Relation F1", "ent_rel": "Entity and relation F1"}


def extractor_card(parts: Parts, labels: Labels, settings: Mapping[str, Any]) -> str:
    """Markdown with the hub's YAML header; scores stand there as a model index.

    `settings`: those of the extraction. `parts.facts` may hold `scores`, see SCORES, and `name`, that of the model.
    """
    scores: Mapping[str, Mapping[str, Any]] = parts.facts.get(SCORES, {})
    name = str(parts.facts.get("name", "extractor"))
    fields: dict[str, Any] = {"library_name": "spe-dist", "pipeline_tag": "token-classification"}
    if scores:
        fields |= {"model_name": name, "eval_results": _results(scores)}
    facts = {
        "sentence encoder": sentence_encoder(parts),
        **readable(parts, without=(SCORES, "name")),
        **{name.replace("_", " "): json.dumps(value) for name, value in settings.items()},
    }
    return render_card(
        "extractor.md",
        header=header(parts, **fields),
        scores={f"{split} ({row['corpus']})": _percents(row) for split, row in scores.items()},
        facts=facts,
        entities=", ".join(f"`{name}`" for name in labels.entity_types),
        relations=", ".join(f"`{name}`" for name in labels.relation_types),
    )


def card_scores(corpus: str, scores: Scores) -> dict[str, Any]:
    """The scores of a corpus as a card has them; of its path the last part alone."""
    return {"corpus": shared_name(corpus), **scores.measured_f1s}


def _percents(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[metric]:.2%}" if metric in row else "-" for metric in METRICS]


def _results(scores: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="token-classification",
            task_name="Joint entity and relation extraction",
            dataset_type=re.sub(r"[^\w.-]+", "-", row["corpus"]),
            dataset_name=row["corpus"],
            dataset_split=SPLITS.get(split, split),
            metric_type="f1",
            metric_name=title,
            metric_value=round(row[metric], 4),
        )
        for split, row in scores.items()
        for metric, title in TITLES.items()
        if metric in row
    ]
