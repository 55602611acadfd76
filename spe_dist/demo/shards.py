"""The demo corpus as shards: its sizes, and the one function that makes all of it in a folder."""

from __future__ import annotations

from pathlib import Path

from spe_dist.demo.sentences import TEXT_FILE, write_demo_corpus

SENTENCES = 12_000  # to train on
VOCABULARY = 1_600  # word pieces, trained on these sentences: common words are whole, most names are not
HELD_OUT = 0.04
SEED = 0

SHARDS_FOLDER = "shards"


def make_demo_shards(folder: str | Path) -> Path:
    """The folder of shards below `folder`, with text and labelled sentences beside it; made where it is not complete.

    Raises:
        SpeError: when the corpus or its shards cannot be made.
    """
    from spe_dist.data.build.make import make_shards
    from spe_dist.data.shards.manifest import MANIFEST_NAME

    shards = Path(folder) / SHARDS_FOLDER
    if not (shards / MANIFEST_NAME).exists():
        write_demo_corpus(folder, sentences=SENTENCES, seed=SEED)
        make_shards(
            [str(Path(folder) / TEXT_FILE)],
            str(shards),
            tokenizer=None,
            train_vocab=VOCABULARY,
            words="spaces",
            held_out=HELD_OUT,
            quiet=True,
        )
    return shards
