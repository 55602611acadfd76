"""Tokenizers: loading, casing against the vocabulary, pieces of single words, training."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from project import ROOT, SHARED

from spe_dist.data.text.vocabulary import (
    SPECIAL_TOKENS,
    PieceEncoder,
    check_tokenizer,
    is_cased,
    load_tokenizer,
    lower_cases,
    save_tokenizer,
    tokenizer_from_pieces,
    vocabulary_pieces,
    vocabulary_sha256,
)
from spe_dist.data.text.vocabulary_training import train_vocabulary
from spe_dist.errors import ConfigError, DataError

BERT_VOCABULARY = SHARED / "data/vocab/bert-base-cased-vocab.txt"
LETTERS = [prefix + chr(c) for prefix in ("", "##") for c in range(ord("a"), ord("z") + 1)]
UNCASED = [*SPECIAL_TOKENS, *LETTERS, "the", "un", "##afford", "##able", ".", ",", "[", "]"]
CASED = [*UNCASED, *(letter.upper() for letter in LETTERS), "The"]


@pytest.fixture
def vocab_file(tmp_path):
    def write(pieces, folder="vocabulary"):
        path = tmp_path / folder / "vocab.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{piece}\n" for piece in pieces))
        return path

    return write


def test_a_bare_vocabulary_is_lower_cased_exactly_where_it_is_uncased(vocab_file):
    assert lower_cases(load_tokenizer(vocab_file(UNCASED)))
    assert not lower_cases(load_tokenizer(vocab_file(CASED)))
    assert is_cased(CASED) and not is_cased(UNCASED)


def test_a_vocabulary_saved_on_windows_is_the_same_one(vocab_file, tmp_path):
    plain = vocab_file(CASED)
    saved = tmp_path / "windows.txt"
    saved.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert vocabulary_pieces(load_tokenizer(saved)) == CASED


def test_a_bare_folder_is_read_like_its_vocabulary(vocab_file):
    path = vocab_file(CASED)
    (path.parent / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert not lower_cases(load_tokenizer(path.parent))


def test_lower_casing_with_a_cased_vocabulary_is_an_error_with_the_remedy(vocab_file):
    path = vocab_file(CASED)
    with pytest.raises(DataError, match=r"cased.*do_lower_case"):
        load_tokenizer(path, do_lower_case=True)
    (path.parent / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    with pytest.raises(DataError, match=r"cased.*do_lower_case"):
        load_tokenizer(path.parent)
    assert not lower_cases(load_tokenizer(path.parent, do_lower_case=False))


def test_what_is_no_wordpiece_tokenizer_is_an_error_that_says_so(vocab_file, tmp_path):
    with pytest.raises(DataError, match=r"no \[MASK\]"):
        load_tokenizer(vocab_file([piece for piece in UNCASED if piece != "[MASK]"]))
    with pytest.raises(DataError, match="'the' twice"):
        load_tokenizer(vocab_file([*UNCASED, "the"]))
    with pytest.raises(DataError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere" / "vocab.txt")

    class NotWordPiece:
        backend_tokenizer = None

    with pytest.raises(DataError, match="needs WordPiece"):
        check_tokenizer(NotWordPiece())


def test_saving_and_loading_keeps_pieces_ids_casing_and_bytes(tmp_path):
    for pieces, lower in ((UNCASED, True), (CASED, False)):
        tokenizer = tokenizer_from_pieces(pieces, lower)
        checksums = save_tokenizer(tokenizer, tmp_path / str(lower))
        assert set(checksums) == {"vocab.txt", "tokenizer.json", "tokenizer_config.json"}
        assert checksums == save_tokenizer(tokenizer, tmp_path / "again")
        loaded = load_tokenizer(tmp_path / str(lower))
        assert vocabulary_pieces(loaded) == pieces and lower_cases(loaded) is lower
        assert (
            loaded.mask_token_id == 4
            and str(tmp_path) not in (tmp_path / str(lower) / "tokenizer_config.json").read_text()
        )


def test_the_hash_is_that_of_the_vocabulary_file(vocab_file):
    import hashlib

    path = vocab_file(CASED)
    assert vocabulary_sha256(load_tokenizer(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_pieces_of_words_are_the_tokenizers_own_and_do_not_depend_on_what_came_before(monkeypatch):
    tokenizer = tokenizer_from_pieces(CASED, do_lower_case=False)
    words = ["unaffordable", "The", "the", "a.b", "naïve", "x" * 200]
    expected = [tuple(tokenizer.encode(word, add_special_tokens=False)) for word in words]
    encoder = PieceEncoder(tokenizer)
    assert encoder.pieces(words) == expected
    monkeypatch.setattr("spe_dist.data.text.vocabulary.CACHED_WORDS", 2)
    assert PieceEncoder(tokenizer).pieces(words[::-1]) == expected[::-1]
    assert [encoder.pieces([word])[0] for word in words] == expected


def test_a_tokenizer_whose_token_for_unknown_words_is_in_no_vocabulary_is_an_error():
    tokenizer = tokenizer_from_pieces(CASED, do_lower_case=False)
    tokenizer.backend_tokenizer.model.unk_token = "[NONE]"
    with pytest.raises(DataError, match="cannot cut words"):
        PieceEncoder(tokenizer).pieces(["\u4e00"])


def test_a_special_token_in_the_text_is_text_and_a_control_character_has_no_pieces():
    tokenizer = tokenizer_from_pieces(CASED, do_lower_case=False)
    mask, bell, unknown = PieceEncoder(tokenizer).pieces(["[MASK]", "\x07", "☃"])
    assert tokenizer.convert_ids_to_tokens(list(mask)) == ["[", "M", "##A", "##S", "##K", "]"]
    assert bell == () and unknown == (tokenizer.unk_token_id,)


def test_training_gives_whole_frequent_words_and_the_same_vocabulary_in_every_process():
    counts = {"the": 500, "house": 90, "houses": 60, "Boston": 40, "mouse": 30, "3.5": 4, "naïve": 3}
    tokenizer = train_vocabulary(counts, 60)
    pieces = vocabulary_pieces(tokenizer)
    assert pieces[:5] == list(SPECIAL_TOKENS) and len(pieces) <= 60 and {"the", "house", "Boston"} <= set(pieces)
    assert tokenizer.tokenize("houses mouse") != ["[UNK]"] * 2
    program = (
        "from spe_dist.data.text.vocabulary_training import train_vocabulary\n"
        "from spe_dist.data.text.vocabulary import vocabulary_sha256\n"
        f"print(vocabulary_sha256(train_vocabulary({counts!r}, 60)))"
    )
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.split()[-1] == vocabulary_sha256(tokenizer)


def test_training_may_lower_case():
    tokenizer = train_vocabulary({"Boston": 10, "boston": 10, "É": 2}, 40, do_lower_case=True)
    assert lower_cases(tokenizer) and not is_cased(vocabulary_pieces(tokenizer))
    check_tokenizer(tokenizer)


def test_training_fewer_pieces_than_letters_is_an_error():
    with pytest.raises(ConfigError, match="train_vocab=6"):
        train_vocabulary({"abc": 3, "def": 2}, 6)


@pytest.mark.skipif(not BERT_VOCABULARY.is_file(), reason="the shared vocabulary is not here")
def test_the_vocabulary_of_bert_base_cased_is_cased_and_keeps_its_ids():
    tokenizer = load_tokenizer(BERT_VOCABULARY)
    assert not lower_cases(tokenizer) and len(vocabulary_pieces(tokenizer)) == 28_996
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id) == (101, 102, 103)
