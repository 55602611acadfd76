"""Which prediction belongs to which gold sentence: by the names of documents where both have them, else by order."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from unicodedata import normalize

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus, Sentence
from spe_dist.extraction.corpora.names import file_names
from spe_dist.utils.wording import how_many


def aligned(gold: Corpus, predicted: Corpus) -> Corpus:
    """The predictions with their documents in the order of gold.

    Documents are matched by name where all have one and both corpora have the same; of the path of a file, folders that
    all have in common and the ending do not count, and several of one name are numbered. Otherwise sentences are
    matched by order.

    Raises:
        DataError: the two do not hold the same sentences.
    """
    by_name = _by_name(gold, predicted)
    if by_name is not None and _are_same(gold, by_name):
        return by_name
    check_aligned(gold, predicted)
    return predicted


def _by_name(gold: Corpus, predicted: Corpus) -> Corpus | None:
    """The predictions in the order of gold's documents; None where names do not tell it, or it is theirs already."""
    ours, theirs = ([document.id for document in corpus.documents] for corpus in (gold, predicted))
    if ours == theirs or len(ours) != len(theirs) or not all(ours) or not all(theirs):
        return None
    names = file_names(ours)
    by_name = dict(zip(file_names(theirs), predicted.documents, strict=True))
    if set(names) != by_name.keys():
        return None
    return replace(predicted, documents=tuple(by_name[name] for name in names))


def _are_same(gold: Corpus, predicted: Corpus) -> bool:
    pairs = zip_longest(gold.sentences, predicted.sentences)
    return all(ours is not None and theirs is not None and ours.words == theirs.words for ours, theirs in pairs)


def check_aligned(gold: Corpus, predicted: Corpus) -> None:
    """Raise DataError, with the number of the sentence and the first difference, unless both hold the same sentences.

    Documents may be cut differently: predictions for a file of documents may come as a list of sentences.
    """
    pairs = zip_longest(gold.sentences, predicted.sentences)
    for number, (ours, theirs) in enumerate(pairs, start=1):
        if ours is None or theirs is None:
            raise DataError(_count_message(gold, predicted))
        if ours.words != theirs.words:
            if gold.n_sentences != predicted.n_sentences:
                raise DataError(f"{_count_message(gold, predicted)} {_difference(number, ours, theirs)}")
            raise DataError(
                f"{_difference(number, ours, theirs)}; predictions must be for the same sentences, in the same "
                f"order and split into the same words: predict {_name(gold, 'the gold file')} again by its words"
            )


def _count_message(gold: Corpus, predicted: Corpus) -> str:
    return (
        f"{_name(predicted, 'the predictions')} has {how_many(predicted.n_sentences, 'sentence')} but "
        f"{_name(gold, 'the gold file')} has {gold.n_sentences:,}; every gold sentence needs its prediction, if only "
        "an empty one, in the same order: predict the same file again, or give the gold file that was predicted."
    )


def _name(corpus: Corpus, otherwise: str) -> str:
    return corpus.source or otherwise


def _difference(number: int, gold: Sentence, predicted: Sentence) -> str:
    where = " and ".join(origin for origin in (gold.origin, predicted.origin) if origin)
    words = zip_longest(gold.words, predicted.words)
    position, (ours, theirs) = next((i, pair) for i, pair in enumerate(words, start=1) if pair[0] != pair[1])
    forms = {normalize("NFKC", word) for word in (ours, theirs) if word is not None}
    written = repr if len(forms) > 1 else ascii  # two Unicode forms of one text look alike
    said = [f"is {written(word)}" if word is not None else "is missing" for word in (ours, theirs)]
    place = f" ({where})" if where else ""
    return (
        f"sentence {number:,}{place} differs at word {position}: it {said[0]} in gold and {said[1]} in the predictions"
    )
