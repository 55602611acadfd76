"""Folders of tokenizers: words that were added, files that are missing, of another kind, or stand for others."""

from __future__ import annotations

import json

import pytest

from spe_dist.data.text import vocabulary
from spe_dist.data.text.vocabulary import (
    SPECIAL_TOKENS,
    PieceEncoder,
    load_tokenizer,
    lower_cases,
    save_tokenizer,
    tokenizer_from_pieces,
)
from spe_dist.errors import DataError

LETTERS = [prefix + chr(c) for prefix in ("", "##") for c in range(ord("a"), ord("z") + 1)]
PIECES = [*SPECIAL_TOKENS, *LETTERS, "the", "-", "1", "9", "##1", "##9", "[", "]"]
ADDED = ["covid-19", "the", "IL2"]
WORDS = ["covid-19", "Covid-19s", "the", "thex", "il2", "[MASK]", "\x07", "x" * 200]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 466247\n"


@pytest.fixture(scope="module")
def tokenizer():
    made = tokenizer_from_pieces(PIECES, do_lower_case=True)
    made.add_tokens(ADDED)
    return made


def pieces_of(tokenizer) -> list[list[str]]:
    return [tokenizer.convert_ids_to_tokens(list(ids)) for ids in PieceEncoder(tokenizer).pieces(WORDS)]


def test_added_words_are_pieces_as_in_transformers(tokenizer):
    ids = PieceEncoder(tokenizer).pieces(WORDS)
    plain = [word for word in WORDS if word != "[MASK]"]
    expected = [tuple(tokenizer.encode(word, add_special_tokens=False)) for word in plain]
    assert [found for word, found in zip(WORDS, ids, strict=True) if word != "[MASK]"] == expected
    found = pieces_of(tokenizer)
    assert found[:5] == [["covid-19"], ["covid-19", "s"], ["the"], ["the", "x"], ["il2"]]
    assert found[5] == ["[", "m", "##a", "##s", "##k", "]"] and found[6] == []


@pytest.mark.parametrize("kept", ["tokenizer.json", "added_tokens.json", "added_tokens_decoder"])
def test_added_words_are_read_with_the_folder_whatever_file_has_them(tokenizer, tmp_path, kept):
    save_tokenizer(tokenizer, tmp_path)
    if kept != "tokenizer.json":
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
        first = len(PIECES)
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
        if kept == "added_tokens.json":
            (tmp_path / kept).write_text(json.dumps({"IL2": first + 1, "covid-19": first, "the": PIECES.index("the")}))
        else:
            words = {str(first): "covid-19", str(first + 1): "IL2", "4": "[MASK]"}
            config[kept] = {number: {"content": word} for number, word in words.items()}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = load_tokenizer(tmp_path)
    assert len(loaded) == len(tokenizer) and pieces_of(loaded)[:2] == [["covid-19"], ["covid-19", "s"]]
    if kept == "tokenizer.json":
        assert pieces_of(loaded) == pieces_of(tokenizer)
        assert PieceEncoder.from_folder(tmp_path).pieces(WORDS) == PieceEncoder(tokenizer).pieces(WORDS)


def test_added_words_stay_with_another_casing_and_are_no_sign_of_a_cased_vocabulary(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    cased = load_tokenizer(tmp_path, do_lower_case=False)
    assert not lower_cases(cased) and len(cased) == len(tokenizer)
    assert pieces_of(cased)[0] == ["covid-19"] and pieces_of(cased)[4] != ["IL2"]


def test_added_words_whose_ids_leave_a_gap_are_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"covid-19": len(PIECES) + 5}))
    with pytest.raises(DataError, match="save the tokenizer again with transformers"):
        load_tokenizer(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"covid-19": "x"}))
    with pytest.raises(DataError, match="is not a word with its id"):
        load_tokenizer(tmp_path)


def test_a_folder_without_tokenizer_files_is_an_error(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(DataError, match=r"holds no tokenizer .*copy these files of the model"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(DataError, match=r"is a BPE tokenizer \(merges.txt\); this needs WordPiece"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_a_pointer_of_git_lfs_in_place_of_a_file_is_named(tokenizer, tmp_path, name):
    save_tokenizer(tokenizer, tmp_path)
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(DataError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        load_tokenizer(tmp_path)
    if name == "vocab.txt":
        with pytest.raises(DataError, match="is a Git LFS pointer"):
            load_tokenizer(tmp_path / name)


@pytest.mark.parametrize(
    ("error", "has_vocabulary", "remedy"),
    [
        (ImportError("You need to install fugashi to use MecabTokenizer. See\nhttps://..."), True, "vocab.txt: the"),
        (ImportError("requires the SentencePiece library but it was not found"), False, "pip install SentencePiece"),
        (ModuleNotFoundError("No module named 'rjieba'", name="rjieba"), False, "pip install rjieba"),
    ],
)
def test_a_package_that_a_tokenizer_needs_is_named(tmp_path, monkeypatch, error, has_vocabulary, remedy):
    import transformers

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertJapaneseTokenizer"}))
    (tmp_path / ("vocab.txt" if has_vocabulary else "tokenizer.json")).write_text("{}")
    with pytest.raises(DataError) as caught:
        vocabulary.load_tokenizer(tmp_path)
    message = str(caught.value)
    assert "needs the package" in message and "which is not installed" in message and remedy in message
    assert "\n" not in message
