"""WordPiece tokenizers: load any, check that casing and vocabulary agree, hash, save beside the shards.

transformers is imported where it is used, so that importing this module costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spe_dist.data.text.tokenizer_files import (
    MAX_BYTES,
    REMEDY,
    add_words,
    check_files,
    missing_package,
    words_added_beside,
)
from spe_dist.errors import ConfigError, DataError, SpeError
from spe_dist.utils.files import file_sha256
from spe_dist.utils.hub import tokenizer_folder
from spe_dist.utils.reading.files import check_file
from spe_dist.utils.reading.json_file import read_object, shown
from spe_dist.utils.wording import one_line, short

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CASED_SHARE = 0.01  # share of a vocabulary's pieces with upper-case letters from which it counts as cased
BERT_TOKENIZERS = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")  # one vocabulary, one way to use it
CACHED_WORDS = 500_000
BOOLEANS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
FREE_IDS = 100_000
RESIZE = ", or save it with embeddings of the words that were added (model.resize_token_embeddings(len(tokenizer)))"
SAVED_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")


def load_tokenizer(source: str | Path, do_lower_case: bool | None = None) -> Any:
    """A transformers tokenizer from a name on the hub, a folder or a vocab.txt.

    do_lower_case overrides what the source says; where the source is silent (a bare vocabulary) the vocabulary decides,
    not transformers' default, which lower-cases.

    Raises:
        DataError: there is none, it is no WordPiece tokenizer, special tokens are missing, or it lower-cases although
            its vocabulary is cased.
    """
    source = str(source)
    path = Path(source).expanduser()
    if path.is_file() and path.suffix != ".json":
        tokenizer = _from_vocabulary(read_vocabulary(path), do_lower_case)
    elif path.is_file():
        raise DataError(f"tokenizer={source} is one file of a tokenizer; give its folder, or a vocab.txt")
    elif not path.exists() and (path.is_absolute() or source.startswith((".", "~")) or path.suffix == ".txt"):
        raise DataError(f"tokenizer={source} does not exist; give a folder, a vocab.txt or a name on the hub")
    else:
        try:
            folder = tokenizer_folder(source)
        except ConfigError as error:
            raise DataError(f"tokenizer={source} cannot be loaded: {error}") from error
        tokenizer = _from_folder(folder, source, do_lower_case)
    with _explained(source):
        check_tokenizer(tokenizer, source)
    return tokenizer


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turns whatever transformers and tokenizers raise over damaged files into a DataError of one line."""
    try:
        yield
    except SpeError:
        raise
    except BaseException as error:
        is_panic = (
            type(error).__name__ == "PanicException"
        )  # of a library in Rust; no Exception, so that none catches it
        if not isinstance(error, Exception) and not is_panic:
            raise
        raise DataError(f"tokenizer={source} cannot be loaded ({one_line(error)}); {REMEDY}") from error


def _from_folder(folder: Path, source: str, do_lower_case: bool | None) -> Any:
    from transformers import AutoTokenizer

    check_files(folder, source)
    if (folder / "vocab.txt").is_file() and not (folder / "tokenizer.json").is_file():
        config = _read_config(folder / "tokenizer_config.json")
        if str(config.get("tokenizer_class", "BertTokenizer")).removesuffix("Fast") in BERT_TOKENIZERS:
            lower = config.get("do_lower_case") if do_lower_case is None else do_lower_case
            options = {key: config[key] for key in ("strip_accents", "tokenize_chinese_chars") if key in config}
            pieces = read_vocabulary(folder / "vocab.txt")
            tokenizer = _from_vocabulary(pieces, lower, **options)
            known = dict(enumerate(pieces))
            added = words_added_beside(folder, config).items()
            add_words(tokenizer, {number: word for number, word in added if known.get(number) != word}, source)
            return tokenizer
    with _explained(source):
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except ImportError as error:
            raise missing_package(error, folder, source) from error
    if do_lower_case is not None and do_lower_case != lower_cases(tokenizer):
        _check_wordpiece(tokenizer, source)
        return _with_casing(tokenizer, do_lower_case, source)
    return tokenizer


def _with_casing(tokenizer: Any, do_lower_case: bool, source: str) -> Any:
    """The same vocabulary and the same added words with the other casing."""
    added = {number: token for number, token in tokenizer.added_tokens_decoder.items() if not token.special}
    pieces = vocabulary_pieces(tokenizer)
    while pieces and len(pieces) - 1 in added:
        pieces.pop()
    other = _from_vocabulary(pieces, do_lower_case)
    add_words(other, added, source)
    return other


def _read_config(path: Path) -> dict[str, Any]:
    config = read_object(path, "repair or remove it") if path.is_file() else {}
    for name, value in config.items():
        if name in BOOLEANS and not isinstance(value, bool | None):
            raise DataError(f"{path}: {name} is {shown(value)}, not true or false; repair or remove it")
    return config


def read_vocabulary(path: Path) -> list[str]:
    """The pieces of a vocab.txt, one a line, in id order; a byte order mark and Windows line ends are no pieces."""
    check_file(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(f"vocabulary {path} is larger than {MAX_BYTES >> 20} MiB: it is none; give another")
        pieces = data.decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"vocabulary {path} cannot be read ({error}); give one in UTF-8, one piece a line") from error
    pieces = [piece.removesuffix("\r") for piece in pieces]
    while pieces and not pieces[-1]:
        pieces.pop()
    if len(set(pieces)) != len(pieces):
        seen: set[str] = set()
        repeated = next(piece for piece in pieces if piece in seen or seen.add(piece))  # type: ignore[func-returns-value]
        raise DataError(f"vocabulary {path} holds the piece {short(repeated)} twice; each line must be another piece")
    return pieces


def tokenizer_from_pieces(pieces: Sequence[str], do_lower_case: bool, **options: Any) -> Any:
    """BERT's tokenizer over these pieces, piece i having id i; options as transformers' BertTokenizer takes them."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=do_lower_case, **options)


def _from_vocabulary(pieces: Sequence[str], do_lower_case: bool | None, **options: Any) -> Any:
    missing = [token for token in SPECIAL_TOKENS if token not in set(pieces)]
    if missing:
        raise DataError(f"the vocabulary has no {', '.join(missing)}; it must be a BERT (WordPiece) vocabulary")
    return tokenizer_from_pieces(pieces, not is_cased(pieces) if do_lower_case is None else do_lower_case, **options)


def is_cased(pieces: Iterable[str]) -> bool:
    """Whether a vocabulary distinguishes upper case: a lower-cased one holds upper case in special tokens at most."""
    words = [piece for piece in pieces if not (piece.startswith("[") and piece.endswith("]"))]
    upper = sum(1 for piece in words if piece != piece.lower() and any(c.isupper() for c in piece))
    return upper > CASED_SHARE * len(words)


def lower_cases(tokenizer: Any) -> bool:
    """Whether the tokenizer lower-cases, asked of what it does rather than what its settings say."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and normalizer.normalize_str("ABC") == "abc"


def check_tokenizer(tokenizer: Any, source: str = "the tokenizer") -> None:
    """Check that this is a WordPiece tokenizer with BERT's special tokens whose casing fits its vocabulary.

    Raises:
        DataError: it is not.
    """
    _check_wordpiece(tokenizer, source)
    ids = [getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "unk", "cls", "sep", "mask")]
    if None in ids or len(set(ids)) != len(ids):
        raise DataError(f"tokenizer={source} lacks one of {', '.join(SPECIAL_TOKENS)}; use a BERT-family tokenizer")
    pieces = vocabulary_pieces(tokenizer)[: tokenizer.vocab_size]  # without added words, which have casing of their own
    if lower_cases(tokenizer) and is_cased(pieces):
        upper = sum(1 for piece in pieces if piece != piece.lower())
        raise DataError(
            f"tokenizer={source} lower-cases, but its vocabulary is cased ({upper:,} of {len(pieces):,} pieces have "
            "upper-case letters and could never occur); set do_lower_case to false, or take the uncased vocabulary"
        )


def _check_wordpiece(tokenizer: Any, source: str) -> None:
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if type(model).__name__ != "WordPiece":
        kind = type(model).__name__ if model is not None else type(tokenizer).__name__
        raise DataError(
            f"tokenizer={source} is a {kind} tokenizer; this needs WordPiece (BERT, SpanBERT, SciBERT, ...)"
        )


def vocabulary_pieces(tokenizer: Any) -> list[str]:
    """All pieces in id order; an id without a piece is an empty string."""
    vocabulary = tokenizer.get_vocab()
    highest = max(vocabulary.values(), default=-1)
    if highest >= 2 * len(vocabulary) + FREE_IDS:  # room for ids without a piece, which some vocabularies have
        raise DataError(f"the vocabulary has {len(vocabulary):,} pieces, but one has the id {highest:,}; {REMEDY}")
    pieces = [""] * (highest + 1)
    for piece, i in vocabulary.items():
        pieces[i] = piece
    return pieces


def vocabulary_sha256(tokenizer: Any) -> str:
    """SHA-256 of the pieces in id order, one a line: that of a vocab.txt with a final line break."""
    return hashlib.sha256("".join(f"{piece}\n" for piece in vocabulary_pieces(tokenizer)).encode()).hexdigest()


def save_tokenizer(tokenizer: Any, folder: Path) -> dict[str, str]:
    """Write vocab.txt, tokenizer.json and tokenizer_config.json; returns their SHA-256 by name. No paths inside."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    config_path = folder / "tokenizer_config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in ("name_or_path", "is_local", "_commit_hash")}
    config["do_lower_case"] = lower_cases(tokenizer)
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    text = "".join(f"{piece}\n" for piece in vocabulary_pieces(tokenizer))
    (folder / "vocab.txt").write_text(text, encoding="utf-8")
    return {name: file_sha256(folder / name) for name in SAVED_FILES if (folder / name).is_file()}


class PieceEncoder:
    """Piece ids of single words, each word by itself, as METHOD defines a word.

    A special token that is written in the text (`[MASK]`) is text here and is split like any other; a word that was
    added to the vocabulary (`add_tokens`) is one piece, as in transformers also inside a longer word; a word without
    any piece (control characters) gives an empty tuple.
    """

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer`: of transformers, or of the tokenizers package."""
        from tokenizers import Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if all(token.special for token in backend.get_added_tokens_decoder().values()):
            self._encoder = Tokenizer(backend.model)
            if backend.normalizer is not None:
                self._encoder.normalizer = backend.normalizer
            if backend.pre_tokenizer is not None:
                self._encoder.pre_tokenizer = backend.pre_tokenizer
        else:
            self._encoder = Tokenizer.from_str(backend.to_str())  # a copy, with the added words
            self._encoder.encode_special_tokens = True  # as text
            self._encoder.no_truncation()
            self._encoder.no_padding()
        self.vocabulary_size: int = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.unknown_id: int = backend.token_to_id(backend.model.unk_token)
        self._known: dict[str, tuple[int, ...]] = {}

    @classmethod
    def from_folder(cls, folder: str | Path) -> PieceEncoder:
        """From a folder that `save_tokenizer` wrote, without transformers."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_file(str(Path(folder) / "tokenizer.json")))

    def pieces(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        """The pieces of each word."""
        known = self._known
        try:
            return [known[word] for word in words]
        except KeyError:
            known = self.learn(words)
            return [known[word] for word in words]

    def learn(self, words: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Look up words ahead of `pieces`: those of many sentences together take less time. Gives all known words."""
        known = self._known
        if len(known) > CACHED_WORDS:
            known = self._known = {}  # another thread may still read the old one
        unknown = sorted({word for word in words if word not in known})
        try:
            encodings = self._encoder.encode_batch_fast(unknown, add_special_tokens=False)
        except Exception as error:  # of no class of its own: a vocabulary without the token of unknown words
            raise DataError(f"the tokenizer cannot cut words ({error}); use another tokenizer.json") from None
        for word, encoding in zip(unknown, encodings, strict=True):
            known[word] = tuple(encoding.ids)
        return known
