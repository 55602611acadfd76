"""`SHA256SUMS`: the checksums of a folder's files, beside them, in the form that `sha256sum --check` reads.

It is written with the folder and compared when the folder is loaded. A folder without it, older, made by hand or of
another program, is taken as it is. The card, which people edit, is not in it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from spe_dist.errors import CheckpointError
from spe_dist.utils.files import file_sha256
from spe_dist.utils.reading.files import read_up_to
from spe_dist.utils.reading.lfs import pointer_fault

SUMS = "SHA256SUMS"
NOT_SUMMED = frozenset({SUMS, "README.md", ".gitattributes"})
MAX_BYTES = 1 << 20
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\x00]{1,255})", re.ASCII)
_READ = (".json", ".safetensors", ".bin", "vocab.txt")  # what loading a folder may read
_told: set[Path] = set()


def write_sums(folder: Path) -> None:
    """Write the checksums of the files that lie in a folder now."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in NOT_SUMMED)
    with ThreadPoolExecutor(2) as pool:  # hashing leaves the interpreter to others
        sums = pool.map(lambda name: file_sha256(folder / name), names)
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for digest, name in zip(sums, names, strict=True)))


@contextmanager
def checked(folder: Path, only: Collection[str] = ()) -> Iterator[None]:
    """Compare a folder with its checksums while the block reads it; a difference explains what else went wrong there.

    `only`: the files that are read; those alone are compared, and nothing is said of a folder without checksums.

    Raises:
        CheckpointError: a file is missing, is another than was written, or has no checksum.
    """
    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(_problem, folder, only)
        try:
            yield
        except Exception as error:
            if problem := checking.result():
                raise CheckpointError(problem) from error
            raise
        if problem := checking.result():
            raise CheckpointError(problem)


def _problem(folder: Path, only: Collection[str]) -> str | None:
    """What of a folder is not as its checksums say; None where all is, or where it has none."""
    file = folder / SUMS
    if not file.is_file():
        if not only and folder not in _told:
            _told.add(folder)
            note = f"note: {folder} has no {SUMS}: whether its files are as they were written is not checked"
            print(note, file=sys.stderr)
        return None
    try:
        sums = {name: digest for name, digest in _read(file).items() if not only or name in only}
        found = {path.name for path in folder.iterdir() if path.is_file()} - NOT_SUMMED
        found = found & set(only) if only else found
        if missing := sorted(sums.keys() - found):
            return f"{folder} is incomplete: {missing[0]} is missing, which {SUMS} lists; {_REMEDY}"
        if unlisted := sorted(name for name in found - sums.keys() if name.endswith(_READ)):
            return f"{folder} holds {unlisted[0]}, which {SUMS} does not list: somebody added it; {_REMEDY}"
        for name, digest in sums.items():
            if file_sha256(folder / name) != digest:
                damaged = f"{folder / name} is damaged or was changed: its SHA-256 is not that of {SUMS}; {_REMEDY}"
                return pointer_fault(folder / name) or damaged
    except (OSError, ValueError) as error:
        return f"{file} cannot be checked ({error}); {_REMEDY}"
    return None


def _read(file: Path) -> dict[str, str]:
    text = read_up_to(file, MAX_BYTES).decode("utf-8")
    if len(text) > MAX_BYTES:
        raise ValueError("it is too large")
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in sums:
            raise ValueError(f"line {number} is not a checksum and name")
        sums[match[2]] = match[1]
    return sums


_REMEDY = f"copy or export the folder again; if you changed it yourself, remove {SUMS} (then nothing is compared)"
