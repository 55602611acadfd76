"""Publish an exported or fine-tuned folder on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from spe_dist.errors import ConfigError
from spe_dist.export.folder import CARD, SPE_CONFIG
from spe_dist.utils.hub import TIMEOUT_S, Explained, api, endpoint
from spe_dist.utils.reading.bounded import within

NEW_REPOSITORY = {".gitattributes", CARD}  # what may lie in one that holds no model yet


def check_push(name: str) -> str:
    """The full name, USER/NAME, under which a folder can be published; to be called before long work.

    Raises:
        ConfigError: there is no token, the hub cannot be reached, or the name is taken by something else.
    """
    from huggingface_hub.errors import HfHubHTTPError

    with Explained(name):
        user = within(TIMEOUT_S, lambda: api().whoami())["name"]
        full_name = name if "/" in name else f"{user}/{name}"
        try:
            info = within(TIMEOUT_S, lambda: api().model_info(full_name, timeout=TIMEOUT_S))
        except HfHubHTTPError as error:
            if error.response is not None and error.response.status_code == 404:
                return full_name
            raise
    files = {file.rfilename for file in info.siblings or []}
    if SPE_CONFIG not in files and not files <= NEW_REPOSITORY:
        raise ConfigError(
            f"{full_name} exists at {endpoint()} and is not an earlier export (no {SPE_CONFIG} in it): not replaced; "
            "choose another name"
        )
    return full_name


def push(folder: Path, name: str, public: bool = False) -> str:
    """Publish all files of `folder` under USER/NAME, in place of an earlier export of that name; returns its address.

    A new repository is private unless `public`; one that exists stays as visible as it is.

    Raises:
        ConfigError: as `check_push`, or the token may not write there.
    """
    full_name = check_push(name)
    with Explained(full_name):
        api().create_repo(full_name, private=not public, exist_ok=True)
        stale = ["*.json", "*.safetensors"]  # of an earlier export with other parts
        api().upload_folder(repo_id=full_name, folder_path=folder, commit_message="Upload model", delete_patterns=stale)
    return f"{endpoint()}/{full_name}"
