"""Write records whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from spe_dist.data.text.files import COMPRESSED_SUFFIXES
from spe_dist.errors import DataError
from spe_dist.utils.files import atomic_file, goes_to_stream


def save_records(records: Iterable[Any], path: Path, as_list: bool, overwrite: bool) -> None:
    """JSON, one record a line; as a list in brackets where asked and the name does not end in .jsonl.

    The file appears under its name when all of it is written; an interrupted run leaves what was there. A link,
    device or pipe is written to as it is; where nothing in it is overwritten, `overwrite` is not needed.
    """
    stem = path.with_suffix("") if path.suffix in COMPRESSED_SUFFIXES else path
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a file in it")
        is_stream = goes_to_stream(path)
        if path.exists() and not (overwrite or is_stream):
            raise DataError(f"{path} exists; name another file, or allow it to be overwritten (--overwrite)")
        with atomic_file(path) as written, _open(written, path.suffix, "at" if is_stream else "wt") as file:
            for text in _texts(records, as_list and stem.suffix != ".jsonl"):
                file.write(text)
    except (BrokenPipeError, DataError):
        raise
    except OSError as error:
        reason = error.strerror or error  # the whole error would name the temporary file
        raise DataError(f"{path} cannot be written ({reason}); check the folder, its permissions and space") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be written ({error}); remove the value that JSON has no form for") from None


def _open(path: Path, suffix: str, mode: Literal["at", "wt"]) -> IO[str]:
    if suffix == ".gz":
        return gzip.open(path, mode, encoding="utf-8", newline="\n")  # type: ignore[return-value]
    if suffix == ".xz":
        return lzma.open(path, mode, encoding="utf-8", newline="\n")  # type: ignore[return-value]
    if suffix == ".bz2":
        return bz2.open(path, mode, encoding="utf-8", newline="\n")  # type: ignore[return-value]
    if suffix == ".zst":
        import zstandard

        return zstandard.open(path, mode, encoding="utf-8", newline="\n")
    return path.open(mode, encoding="utf-8", newline="\n")


def _texts(records: Iterable[Any], as_list: bool) -> Iterator[str]:
    lines = (json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records)
    if not as_list:
        yield from (f"{line}\n" for line in lines)
        return
    begin = "[\n"
    for line in lines:
        yield f"{begin}{line}"
        begin = ",\n"
    yield "[]\n" if begin == "[\n" else "\n]\n"
