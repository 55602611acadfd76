"""Models and tokenizers by name on the Hugging Face hub: fetched into its cache, and published.

What the cache holds needs no network. What it does not hold is asked for once, with a limit of seconds: the libraries
by themselves try for minutes.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spe_dist.errors import ConfigError
from spe_dist.utils.reading.bounded import within

TIMEOUT_S = 5.0  # for the first answer of the hub
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

TOKENIZER_FILES = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
OUR_CONFIG = "spe_config.json"  # a folder that has it is one of ours: every file of it is wanted
PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def model_folder(source: str) -> Path:
    """The folder of a model's config, weights and tokenizer: `source` itself, or the hub's model of that name, cached.

    Raises:
        ConfigError: there is no such folder, and no such name that can be reached.
    """

    def wanted(names: Sequence[str]) -> list[str]:
        safe = _matching(names, WEIGHTS)
        beside = _matching(names, ("config.json", *TOKENIZER_FILES))
        if OUR_CONFIG in names:
            beside = [name for name in _matching(names, ("[!.]*",)) if not _matching([name], (*PICKLED, *WEIGHTS))]
        return [*beside, *(safe or _matching(names, PICKLED_WEIGHTS))]

    def is_whole(folder: Path) -> bool:
        names = [path.name for path in folder.iterdir()]
        return "config.json" in names and bool(_matching(names, (*WEIGHTS, *PICKLED_WEIGHTS)))

    return _folder(source, wanted, is_whole)


def tokenizer_folder(source: str) -> Path:
    """The folder of a tokenizer's files: `source` itself, or the hub's repository of that name, cached.

    Raises:
        ConfigError: there is no such folder, and no such name that can be reached.
    """
    files = (*TOKENIZER_FILES, "config.json")  # the config names the tokenizer's class where nothing else does
    return _folder(
        source,
        lambda names: _matching(names, files),
        lambda folder: any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")),
    )


def check_names(**sources: str | None) -> None:
    """Ask the hub for the names among `sources` of which the cache holds nothing; for commands, before slow imports.

    Raises:
        ConfigError: one of them cannot be reached; it begins with the keyword.
    """
    for setting, source in sources.items():
        name = hub_name(source)
        if name is None:
            continue
        try:
            with Explained(name):
                if _cached(name, lambda _: True) is None:
                    _ask(name)
        except ConfigError as error:
            raise ConfigError(f"{setting}={error}") from error


def hub_name(source: str | None) -> str | None:
    """`source` where it is a name on the hub, None where it is a path or nothing."""
    return source if source and not _is_path(source) else None


def _is_path(source: str) -> bool:
    path = Path(source).expanduser()
    return path.exists() or path.is_absolute() or source.startswith((".", "~")) or not NAME.fullmatch(source)


def _folder(source: str, wanted: Callable[[Sequence[str]], list[str]], is_whole: Callable[[Path], bool]) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path
    if _is_path(source):
        raise ConfigError(f"{source} does not exist; give a folder, or a name on the hub such as bert-base-cased")
    with Explained(source):
        cached = _cached(source, is_whole)
        if cached is not None:
            return cached
        files = wanted(_ask(source))
        import huggingface_hub

        return Path(huggingface_hub.snapshot_download(source, allow_patterns=files, endpoint=endpoint()))


def _cached(name: str, is_whole: Callable[[Path], bool]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "tokenizer.json", "vocab.txt"):
        found = try_to_load_from_cache(name, file)
        if isinstance(found, str) and is_whole(Path(found).parent):
            return Path(found).parent
    return None


def _ask(name: str) -> list[str]:
    """The files that the hub has under a name."""
    info = within(TIMEOUT_S, lambda: api().model_info(name, timeout=TIMEOUT_S))
    return [file.rfilename for file in info.siblings or []]


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Of the names of files, those at the top that fit one of the patterns."""
    return [name for name in names if "/" not in name and any(fnmatch.fnmatch(name, p) for p in patterns)]


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or huggingface.co."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def api() -> Any:
    """huggingface_hub's client."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="spe-dist")


class Explained:
    """Turns what the hub's client raises into a ConfigError of one line about `name`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, ConfigError):
            raise ConfigError(explain(self.name, error)) from None


def explain(name: str, error: Exception) -> str:
    """What went wrong with a repository of the hub, and what to do, in one line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    login = "log in with `hf auth login`, or set HF_TOKEN"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    missing = f"{name} is neither a folder nor in the hub's cache"
    remedy = "give a folder, or fetch it where there is a network"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{missing}, and HF_HUB_OFFLINE is set; {remedy}"
    if isinstance(error, GatedRepoError):
        return f"{name} is a gated model; ask for access at {endpoint()}/{name}, then {login}"
    if isinstance(error, HFValidationError):
        return f"{name} cannot be a name on the hub; give USER/NAME"
    if isinstance(error, LocalTokenNotFoundError) or (status == 401 and not isinstance(error, RepositoryNotFoundError)):
        return f"the hub at {endpoint()} knows no user of this token; {login}"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"there is no {name} on the hub at {endpoint()}; check the name, or for a private one {login}"
    if status == 403:
        return f"your token may not write to {name}; choose a name of your own, or a token with write access"
    if status is not None:
        return f"the hub at {endpoint()} answered {status} about {name}; try again later"
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return f"{missing}, and the hub at {endpoint()} cannot be reached ({reason}); {remedy}"
