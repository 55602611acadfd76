"""The files of a tokenizer's folder: whether there is one at all, of which kind, and which words were added to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spe_dist.errors import DataError
from spe_dist.utils.reading.files import check_file
from spe_dist.utils.reading.json_file import read_object, shown
from spe_dist.utils.wording import one_line, short

MAX_BYTES = 256 << 20  # of a vocabulary's files
REMEDY = "give a folder with tokenizer.json or vocab.txt, a vocab.txt, or a name on the hub"
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
OTHER_KINDS = {  # files of tokenizers that are no WordPiece
    "vocab.json": "BPE",
    "merges.txt": "BPE",
    "bpe.codes": "BPE",
    "spiece.model": "SentencePiece",
    "sentencepiece.bpe.model": "SentencePiece",
    "tokenizer.model": "SentencePiece",
}
ADDED = "added_tokens.json"
_PACKAGE = re.compile(r"(?:pip install|install|requires the|No module named) [`']?([A-Za-z][\w.-]*)")


def check_files(folder: Path, source: str) -> None:
    """Check that a folder holds a tokenizer's files, as themselves.

    Raises:
        DataError: it holds none, those of another kind alone, pointers to them, or one that is too large.
    """
    for name in TOKENIZER_FILES:
        check_file(folder / name)
        if (folder / name).is_file() and (folder / name).stat().st_size > MAX_BYTES:
            raise DataError(f"{folder / name} is larger than {MAX_BYTES >> 20} MiB: it is not a vocabulary; {REMEDY}")
    if any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        return
    for name, kind in OTHER_KINDS.items():
        if (folder / name).is_file():
            raise DataError(
                f"tokenizer={source} is a {kind} tokenizer ({name}); this needs WordPiece (BERT, SciBERT, ...)"
            )
    raise DataError(
        f"tokenizer={source} holds no tokenizer (neither tokenizer.json nor vocab.txt); copy these files of the model "
        "that it comes from into it, or name that model's --tokenizer"
    )


def missing_package(error: ImportError, folder: Path, source: str) -> DataError:
    """What is to be done where a tokenizer's class needs a package that is not installed."""
    found = _PACKAGE.search(str(error))
    package = error.name or (found[1] if found else None)
    needs = f"needs the package {package}, which is not installed" if package else f"needs more: {one_line(error)}"
    vocabulary = folder / "vocab.txt"
    if vocabulary.is_file():
        remedy = f"if its vocabulary is WordPiece, give --tokenizer {vocabulary}: the product finds the words by itself"
    else:
        remedy = f"pip install {package}" if package else REMEDY
    return DataError(f"tokenizer={source} {needs}; {remedy}")


def words_added_beside(folder: Path, config: Mapping[str, Any]) -> dict[int, str]:
    """The words that were added to a vocab.txt, by id: of added_tokens.json, or in tokenizer_config.json.

    Raises:
        DataError: they are no words with ids.
    """
    path = folder / ADDED
    if path.is_file():
        found = {number: word for word, number in read_object(path, "repair or remove it").items()}
    else:
        path = folder / "tokenizer_config.json"
        tokens = config.get("added_tokens_decoder") or {}
        if not isinstance(tokens, dict) or not all(isinstance(token, dict) for token in tokens.values()):
            raise DataError(f"{path}: added_tokens_decoder is {shown(tokens)}, no tokens by id; repair or remove it")
        found = {
            int(number) if str(number).isdecimal() else number: token.get("content") for number, token in tokens.items()
        }
    for number, word in found.items():
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(word, str) or not word:
            raise DataError(f"{path}: {shown({str(word): number})} is not a word with its id; repair or remove it")
    return found


def add_words(tokenizer: Any, words: Mapping[int, Any], source: str) -> None:
    """Add words (or AddedTokens) to a tokenizer under their ids.

    Raises:
        DataError: one would get another id, since the ids behind the vocabulary have gaps.
    """
    tokenizer.add_tokens([words[number] for number in sorted(words)])
    for number, word in words.items():
        given = tokenizer.convert_tokens_to_ids(str(word))
        if given != number:
            raise DataError(
                f"tokenizer={source}: the added word {short(str(word))} has the id {number:,}, but its place is "
                f"{given:,}; save the tokenizer again with transformers, which writes tokenizer.json"
            )
