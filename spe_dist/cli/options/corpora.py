"""What the commands that read annotated corpora have in common: how texts with entities become words."""

from __future__ import annotations

import argparse

from spe_dist.cli.options.languages import add_language
from spe_dist.cli.options.parser import Parser
from spe_dist.data.text.languages import AUTO
from spe_dist.extraction.annotations.settings import AnnotationSettings


def add_corpus_options(parser: Parser, with_language: bool = True) -> None:
    """Add `--cut_words`, `--concept_pairs` and `--language`, which `--help-all` shows.

    Args:
        with_language: whether `--language` is still to be added.
    """
    group = parser.add_argument_group("annotated texts that are not split into words")
    if with_language:
        parser.less_used(add_language(group.add_argument, AUTO))
    parser.less_used(
        group.add_argument(
            "--cut_words",
            choices=("widen", "drop"),
            default="widen",
            help="entities that cover a part of a word: widen them to whole words, or drop them",
        ),
        group.add_argument(
            "--concept_pairs",
            choices=("all", "nearest"),
            default="all",
            help="a relation of concepts with several mentions (PubTator, DocRED): all pairs in a sentence, or the "
            "nearest",
        ),
    )


def annotation_settings(options: argparse.Namespace) -> AnnotationSettings:
    """The settings that were chosen."""
    return AnnotationSettings(options.cut_words, options.concept_pairs, options.language)
