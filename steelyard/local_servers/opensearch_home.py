"""Lays out the home of a real OpenSearch from its Maven artefacts: no registry has its archive.

A home is made once and kept read-only in ``servers_folder()/opensearch-<version>-<hash of the
recipe>``. It lists its files, so one that has lost some is noticed and laid out anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from steelyard.encoders.folder_lock import locked_file
from steelyard.local_servers.errors import ServerError
from steelyard.local_servers.folders import check_free_disk, servers_folder
from steelyard.local_servers.maven import fetch, fetched
from steelyard.local_servers.opensearch_parts import (
    ML_NATIVES,
    MODULES,
    NATIVES,
    VERSION,
    Module,
    Part,
    recipe,
)
from steelyard.progress import Progress, SilentProgress

_LAYOUT = 2  # to be raised when the code below lays out otherwise
_FILES = "files.json"
_EXPECTED = ("bin", "extensions")  # made by the server if they are missing, which it may not
_JNI, _JNI_NAME = "jnilib/linux-x86_64/cpu/libdjl_torch.so", "0.31.1-libdjl_torch.so"
_GB_WITH_ML, _GB = 2.5, 0.5
"""What laying out takes for a while, Maven's own copies included."""


def opensearch_home(*, ml: bool, progress: Progress | None = None) -> Path:
    """The home's folder, laid out now if it is not there yet.

    Args:
        ml: with ML Commons (390 MB) and PyTorch's native libraries (about 400 MB), without which
            it runs no ONNX model.
        progress: is told when it is laid out.

    Raises:
        ServerError: there is no mvn, or it fails, or ML Commons does not run on this platform.
    """
    progress = progress or SilentProgress()
    if ml and (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ServerError(
            "ML Commons is laid out for Linux on x86_64 only, and this is "
            f"{platform.system()} on {platform.machine()}",
            "start OpenSearch without it: --no-ml",
        )
    parts = recipe(ml)
    text = json.dumps(
        [_LAYOUT, [asdict(part) for part in parts], [asdict(module) for module in MODULES]],
        sort_keys=True,
    )
    place = servers_folder()
    name = f"opensearch-{VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    home = place / name
    with _alone(place / f"{name}.lock", progress):
        if not _is_whole(home):
            for left in place.glob(f"{name}.unfinished*"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            _make(home, parts, ml=ml, progress=progress)
    return home


def _make(home: Path, parts: list[Part], *, ml: bool, progress: Progress) -> None:
    title = f"OpenSearch {VERSION}{' with ML Commons' if ml else ''}"
    if home.exists():
        progress.say(f"{home} has lost files: {title} is laid out anew")
    progress.say(f"laying out {title} in {home}, once; the first time takes about a minute")
    check_free_disk(home.parent, _GB_WITH_ML if ml else _GB, f"laying out {title}")
    unfinished = home.with_name(f"{home.name}.unfinished")
    old = home.with_name(f"{home.name}.unfinished-{os.getpid()}")
    try:
        unfinished.mkdir()
        fetch(unfinished / "fetched", parts, title, progress)
        _lay_out(unfinished, parts, ml=ml)
        if home.exists():
            home.rename(old)  # a server may still run from it
        unfinished.rename(home)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _alone(path: Path, progress: Progress) -> Iterator[None]:
    """One process at a time; the lock ends with the process that holds it."""
    with ExitStack() as held:
        try:
            held.enter_context(locked_file(path, wait=False))
        except BlockingIOError:
            progress.say("waiting for another process that lays it out")
            held.enter_context(locked_file(path, wait=True))
        yield


def _is_whole(home: Path) -> bool:
    """Whether every file is there in its full size."""
    try:
        files = json.loads((home / _FILES).read_text(encoding="utf-8"))
        return all((home / path).stat().st_size == size for path, size in files.items())
    except (OSError, ValueError):
        return False


def _lay_out(home: Path, parts: list[Part], *, ml: bool) -> None:
    source = home / "fetched"
    for part in parts:
        folder = home / part.name
        if part.name.startswith("plugins/"):
            _unzip(_files(source, part), folder)
        elif part != ML_NATIVES:
            folder.parent.mkdir(exist_ok=True)
            fetched(source, part).rename(folder)
    libraries = {_stem(jar.name) for jar in (home / "lib").iterdir()}
    for module in MODULES:
        folder = home / "modules" / module.name
        known = set(libraries)
        if module.extends:
            known |= {_stem(jar.name) for jar in (home / "modules" / module.extends).iterdir()}
        for jar in folder.iterdir():
            if _stem(jar.name) in known:
                jar.unlink()
        _describe(folder, module)
    if ml:
        _natives(_files(source, ML_NATIVES), home)
    shutil.rmtree(source)
    for name in _EXPECTED:
        (home / name).mkdir()
    files = {
        str(path.relative_to(home)): path.stat().st_size
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }
    (home / _FILES).write_text(json.dumps(files, indent=0), encoding="utf-8")
    for path in (home, *home.rglob("*")):  # whatever the umask made of them
        path.chmod(0o755 if path.is_dir() else 0o644)


def _files(source: Path, part: Part) -> list[Path]:
    return sorted(fetched(source, part).iterdir())


def _unzip(files: Iterable[Path], folder: Path) -> None:
    for file in files:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)


def _stem(jar: str) -> str:
    """The artefact's name without its version: two versions of one are one too many."""
    return re.sub(r"-\d[\w.+-]*\.jar$", "", jar)


def _describe(folder: Path, module: Module) -> None:
    properties = {
        "description": module.name,
        "version": VERSION,
        "name": module.name,
        "classname": module.classname,
        "java.version": "21",
        "opensearch.version": VERSION,
        "custom.foldername": "",
        "extended.plugins": module.extends,
        "has.native.controller": "false",
    }
    (folder / "plugin-descriptor.properties").write_text(
        "".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8"
    )


def _natives(jars: Iterable[Path], home: Path) -> None:
    """PyTorch's libraries and DJL's own, under the names that DJL gives them in its cache."""
    folder = home / "natives" / NATIVES
    folder.mkdir(parents=True)
    for jar in jars:
        with zipfile.ZipFile(jar) as archive:
            for name in archive.namelist():
                if name == _JNI:
                    target = folder / _JNI_NAME
                elif name.startswith("pytorch/cpu/linux-x86_64/") and ".so" in name:
                    target = folder / Path(name).name
                else:
                    continue
                with archive.open(name) as source, target.open("wb") as stream:
                    shutil.copyfileobj(source, stream)
