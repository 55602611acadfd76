"""Reading corpora: four formats in any layout of JSON, told apart by content."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard
from corpora import ADA, CODE, EXAMPLES, NYT, PSPE, SPERT, WORD_FORMATS, put

from spe_dist.extraction.corpora.corpus import Relation
from spe_dist.extraction.formats import read_corpus


@pytest.mark.parametrize("name", WORD_FORMATS)
def test_each_format_is_told_by_content_and_means_the_same(tmp_path: Path, name: str) -> None:
    corpus = read_corpus(put(tmp_path, EXAMPLES[name], name="no_telling_name"))
    sentence = corpus.sentences[0]
    assert corpus.format == name
    assert sentence.words == ("Ada", "Lovelace", "wrote", "code")
    assert sentence.entities == (ADA, CODE)
    assert sentence.relations == (Relation("Made-By", head=CODE, tail=ADA),)
    assert sentence.origin.startswith(f"{tmp_path}/no_telling_name, line 1")


@pytest.mark.parametrize("layout", ["lines", "list", "pretty list", "one object", "crlf", "bom", "gz", "xz"])
def test_all_layouts_of_json_are_read(tmp_path: Path, layout: str) -> None:
    line = json.dumps(SPERT)
    texts = {
        "list": f"[{line}]",
        "pretty list": json.dumps([SPERT], indent=2),
        "one object": json.dumps(SPERT, indent=2),
        "crlf": f"{line}\r\n\r\n",
        "bom": f"\ufeff{line}",
    }
    data = texts.get(layout, f"{line}\n").encode("utf-8")
    path = tmp_path / "file"
    path.write_bytes({"gz": gzip.compress, "xz": lzma.compress}.get(layout, bytes)(data))
    corpus = read_corpus(path)
    assert corpus.sentences[0].entities == (ADA, CODE)
    assert not corpus.notices


def test_blank_lines_between_records_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(f"{json.dumps(SPERT)}\n\n \n{json.dumps(SPERT)}\n\n", encoding="utf-8")
    assert read_corpus(path).notices == {"blank lines": 2}


def test_sentences_without_words_and_documents_without_sentences_are_counted(tmp_path: Path) -> None:
    empty = {"doc_key": "e", "sentences": [], "ner": [], "relations": []}
    one = {"doc_key": "f", "sentences": [[]], "ner": [[]], "relations": [[]]}
    corpus = read_corpus(put(tmp_path, empty, one))
    assert [len(document.sentences) for document in corpus.documents] == [0, 1]
    assert corpus.notices == {"documents without sentences": 1, "sentences without words": 1}


def test_unmarked_sentences_do_not_decide_the_format(tmp_path: Path) -> None:
    bare = {"sentText": "Good evening .", "entityMentions": [], "relationMentions": []}
    assert read_corpus(put(tmp_path, bare, NYT)).format == "nyt"
    assert read_corpus(put(tmp_path, bare, PSPE)).format == "pspe"
    assert read_corpus(put(tmp_path, bare)).format == "pspe"
    assert read_corpus(put(tmp_path, bare), format="nyt").format == "nyt"


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress, zstandard.compress])
def test_compressed_files_that_were_joined_are_read_to_their_end(tmp_path: Path, compress: Any) -> None:
    data = compress(f"{json.dumps(SPERT)}\n".encode())
    (tmp_path / "joined").write_bytes(data * 3)
    assert read_corpus(tmp_path / "joined").n_sentences == 3


@pytest.mark.parametrize("name", WORD_FORMATS)
def test_telling_fields_of_other_formats_do_not_hide_a_whole_record(tmp_path: Path, name: str) -> None:
    words = ["Ada", "Lovelace", "wrote", "code"]
    corpus = read_corpus(
        put(tmp_path, {"sentText": " ".join(words), "tokens": words, "sentences": [], **EXAMPLES[name]})
    )
    assert corpus.format == name and len(corpus.sentences[0].entities) == 2


def test_every_module_of_formats_and_annotations_can_be_imported_first() -> None:
    program = """
import importlib, pkgutil, sys
from spe_dist.extraction import annotations, formats
names = [module.name for package in (annotations, formats)
         for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
assert len(names) > 20
for name in names:
    for loaded in [loaded for loaded in sys.modules if loaded.startswith("spe_dist.extraction")]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
