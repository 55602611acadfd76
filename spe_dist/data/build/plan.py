"""What a build was asked for, and whether what lies in the output folder belongs to it.

The scratch folder `.build` in the output holds the plan, so that an interrupted build continues only with the same
inputs and settings; a finished build's manifest holds the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spe_dist.data.build.settings import CONTINUE_REMEDY, BuildSettings
from spe_dist.data.shards.index import INDEX_NAME
from spe_dist.data.shards.manifest import MANIFEST_NAME, SPLITS, TOKENIZER_FOLDER, Manifest
from spe_dist.data.text.languages import AUTO
from spe_dist.errors import DataError
from spe_dist.utils.files import remove_unfinished, write_atomically
from spe_dist.utils.reading.json_file import read_object

SCRATCH_FOLDER = ".build"
PLAN_NAME = "plan.json"
_OF_OLD_MANIFESTS = {"language": AUTO}  # settings that earlier versions did not have, as finished shards count by now


@dataclass(frozen=True)
class Plan:
    """The whole request, as JSON content: what must be equal for a build to be continued."""

    content: Mapping[str, Any]

    @classmethod
    def make(cls, files: Sequence[Path], settings: BuildSettings, vocabulary: dict[str, Any] | None) -> Plan:
        """`vocabulary`: what identifies a given tokenizer; None where one is trained."""
        inputs = [{"name": file.name, "bytes": file.stat().st_size} for file in files]
        return cls({"inputs": inputs, "settings": asdict(settings), "vocabulary": vocabulary})

    def difference(self, other: Mapping[str, Any], missing: Mapping[str, Any] | None = None) -> str | None:
        """In words what another request has otherwise; None if nothing. `missing`: settings that it may lack."""
        changed = []
        mine, theirs = self.content["settings"], {**(missing or {}), **other.get("settings", {})}
        for key in mine:
            if key not in theirs or mine[key] != theirs[key]:
                changed.append(f"{key} was {theirs.get(key)!r} and is {mine[key]!r}")
        if self.content["vocabulary"] != other.get("vocabulary"):
            changed.append("the tokenizer is another")
        if self.content["inputs"] != other.get("inputs"):
            changed.append("the input files are others or have other sizes")
        return "; ".join(changed) or None


def finished_build(output: Path, plan: Plan, files: Sequence[Path]) -> Manifest | None:
    """The manifest of a build that is done, None where none is. What it left of its scratch folder is removed.

    Raises:
        DataError: it answers another request.
    """
    path = output / MANIFEST_NAME
    if not path.is_file():
        return None
    manifest = Manifest.load(path)
    as_asked = {"drop_duplicates": plan.content["settings"]["drop_duplicates"]}  # old shards keep what they have
    difference = plan.difference(manifest.source.get("request", {}), _OF_OLD_MANIFESTS | as_asked)
    if difference is None and any(file.stat().st_mtime > path.stat().st_mtime for file in files):
        difference = "an input file has changed since"
    if difference:
        raise DataError(f"{output} holds finished shards of another request ({difference}); {_REMEDY}")
    shutil.rmtree(output / SCRATCH_FOLDER, ignore_errors=True)  # of a build that was ended while it removed that
    return manifest


def begin_or_continue(output: Path, plan: Plan, files: Sequence[Path]) -> tuple[Path, bool]:
    """(scratch folder, whether an interrupted build is continued).

    Raises:
        DataError: that build was another.
    """
    scratch = output / SCRATCH_FOLDER
    content = {**plan.content, "mtimes_ns": [file.stat().st_mtime_ns for file in files]}
    path = scratch / PLAN_NAME
    if path.is_file():
        found = read_object(path, CONTINUE_REMEDY)
        difference = plan.difference(found)
        if difference is None and found.get("mtimes_ns") != content["mtimes_ns"]:
            difference = "an input file has changed since"
        if difference:
            raise DataError(f"{output} holds an unfinished build of another request ({difference}); {_REMEDY}")
        for folder in (output, scratch / "parts", scratch / "duplicates", scratch / "shards"):
            remove_unfinished(folder)
        return scratch, True
    leftover = [path.name for path in _own_files(output) if path != scratch]
    if leftover:
        raise DataError(f"{output} holds {leftover[0]} but no {MANIFEST_NAME}; {_REMEDY}")
    (scratch / "parts").mkdir(parents=True, exist_ok=True)
    (scratch / "shards").mkdir(exist_ok=True)
    write_atomically(path, json.dumps(content))
    return scratch, False


_REMEDY = "choose another output folder, or overwrite it (--overwrite)"


def remove_build(output: Path) -> None:
    """Remove what builds write, the manifest first; other files stay."""
    (output / MANIFEST_NAME).unlink(missing_ok=True)
    remove_unfinished(output)
    for path in _own_files(output):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _own_files(output: Path) -> list[Path]:
    shards = [path for split in SPLITS for path in sorted(output.glob(f"{split}-*.tar*"))]
    others = [output / INDEX_NAME, output / SCRATCH_FOLDER, output / TOKENIZER_FOLDER]
    return [*shards, *(path for path in others if path.exists())]
