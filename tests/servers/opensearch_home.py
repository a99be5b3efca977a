"""Lays out the home of a real OpenSearch from its Maven artefacts: no registry has its archive.

A home is made once and kept read-only beside Steelyard's other caches, in
``cache_dir()/servers/opensearch-<version>-<hash of the recipe>``. OpenSearch refuses to run as
root, so root starts it as ``nobody``; where nobody cannot enter the cache (root's home folder is
closed), homes are kept in ``/var/tmp/steelyard-servers-0`` instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from steelyard.config import cache_dir

VERSION = "3.6.0"
PLUGIN_VERSION = f"{VERSION}.0"
PYTORCH = "2.5.1"
NATIVES = f"{PYTORCH}-cpu-precxx11-linux-x86_64"
"""The folder's name in which DJL looks for PyTorch before it would ask the internet."""

_LAYOUT = 1  # to be raised when the code below lays out otherwise
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_DOWNLOAD_SECONDS = 1800


class ServerError(RuntimeError):
    """A server could not be laid out or started."""


@dataclass(frozen=True)
class Part:
    """One folder of the home and the artefacts, ``group:artefact:version[:type[:classifier]]``.

    Attributes:
        name: the folder.
        artefacts: what is asked of Maven.
        alone: without what they depend on.
    """

    name: str
    artefacts: tuple[str, ...]
    alone: bool = False


@dataclass(frozen=True)
class Module:
    """A module that every distribution has.

    Attributes:
        name: as the distribution calls it.
        artefact: of the group org.opensearch.plugin.
        classname: the plugin's main class.
        extends: the module that it needs.
    """

    name: str
    artefact: str
    classname: str
    extends: str = ""


_CORE = (
    Part(
        "lib",
        (
            f"org.opensearch:opensearch:{VERSION}",
            f"org.opensearch:opensearch-plugin-classloader:{VERSION}",
            "net.java.dev.jna:jna:5.16.0",
            "org.apache.logging.log4j:log4j-core:2.25.3",
        ),
    ),
    Part(
        "agent",
        tuple(
            f"org.opensearch:{name}:{VERSION}"
            for name in ("opensearch-agent", "opensearch-agent-bootstrap")
        ),
    ),
)

_MODULES = (
    Module(
        "transport-netty4",
        "transport-netty4-client",
        "org.opensearch.transport.Netty4ModulePlugin",
    ),
    Module(
        "analysis-common",
        "analysis-common",
        "org.opensearch.analysis.common.CommonAnalysisModulePlugin",
    ),
    Module(
        "mapper-extras",
        "mapper-extras-client",
        "org.opensearch.index.mapper.MapperExtrasModulePlugin",
    ),
    Module("lang-painless", "lang-painless", "org.opensearch.painless.PainlessModulePlugin"),
    Module("reindex", "reindex-client", "org.opensearch.index.reindex.ReindexModulePlugin"),
    Module(
        "search-pipeline-common",
        "search-pipeline-common",
        "org.opensearch.search.pipeline.common.SearchPipelineCommonModulePlugin",
    ),
    Module("parent-join", "parent-join-client", "org.opensearch.join.ParentJoinModulePlugin"),
    Module(
        "ingest-common",
        "ingest-common",
        "org.opensearch.ingest.common.IngestCommonModulePlugin",
        extends="lang-painless",
    ),
    Module("transport-grpc", "transport-grpc", "org.opensearch.transport.grpc.GrpcPlugin"),
)

_PLUGINS = ("opensearch-job-scheduler", "opensearch-knn", "neural-search")
_ML_PLUGIN = "opensearch-ml-plugin"
_ML_NATIVES = Part(
    "natives",
    (
        f"ai.djl.pytorch:pytorch-native-cpu:{PYTORCH}:jar:linux-x86_64",
        f"ai.djl.pytorch:pytorch-jni:{PYTORCH}-0.32.0",
    ),
    alone=True,
)
_EXPECTED = ("bin", "extensions")  # made by the server if they are missing, which it may not
_JNI, _JNI_NAME = "jnilib/linux-x86_64/cpu/libdjl_torch.so", "0.31.1-libdjl_torch.so"


def opensearch_home(*, ml: bool) -> Path:
    """The home's folder, laid out now if it is not there yet.

    Args:
        ml: with ML Commons (390 MB) and PyTorch's native libraries (about 400 MB), without which
            it runs no ONNX model.

    Raises:
        ServerError: there is no mvn, or it fails, or ML Commons does not run on this platform.
    """
    if ml and (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ServerError("ML Commons is laid out for Linux on x86_64 only")
    recipe = _recipe(ml)
    parts, modules = [asdict(part) for part in recipe], [asdict(module) for module in _MODULES]
    text = json.dumps([_LAYOUT, parts, modules], sort_keys=True)
    place = _servers_folder()
    name = f"opensearch-{VERSION}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    home = place / name
    with _locked(place / f"{name}.lock"):
        if not home.is_dir():
            unfinished = place / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
            try:
                unfinished.mkdir()
                _lay_out(unfinished, recipe, ml=ml)
                unfinished.rename(home)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return home


def can_enter(folder: Path) -> bool:
    """Whether any user may go into ``folder``, or what there is of it so far."""
    paths = [path for path in (folder, *folder.parents) if path.exists()]
    return all(path.stat().st_mode & stat.S_IXOTH for path in paths)


def _servers_folder() -> Path:
    """Where homes are kept: a folder of our own that the server's user can enter."""
    user = os.getuid()
    fallback = Path(f"/var/tmp/steelyard-servers-{user}")  # noqa: S108
    for place in ((cache_dir() / "servers").resolve(), fallback):
        if user == 0 and not can_enter(place):
            continue
        place.mkdir(parents=True, exist_ok=True)
        found = place.lstat()
        others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or others_write:
            raise ServerError(f"{place}: not a folder that only this user can write to; remove it")
        place.chmod(0o755)  # whatever the umask made of it
        if user != 0 or can_enter(place):
            return place
    raise ServerError(f"nobody cannot enter {fallback}: run the tests as another user than root")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process that holds it."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _recipe(ml: bool) -> list[Part]:
    parts = [
        *_CORE,
        *(
            Part(f"modules/{m.name}", (f"org.opensearch.plugin:{m.artefact}:{VERSION}",))
            for m in _MODULES
        ),
        *(
            Part(
                f"plugins/{name}",
                (f"org.opensearch.plugin:{name}:{PLUGIN_VERSION}:zip",),
                alone=True,
            )
            for name in (*_PLUGINS, *([_ML_PLUGIN] if ml else []))
        ),
    ]
    return [*parts, _ML_NATIVES] if ml else parts


def _lay_out(home: Path, recipe: list[Part], *, ml: bool) -> None:
    fetched = home / "fetched"
    _fetch(fetched, recipe)
    for part in recipe:
        folder = home / part.name
        if part.name.startswith("plugins/"):
            _unzip(_files(fetched, part.name), folder)
        elif part is not _ML_NATIVES:
            folder.parent.mkdir(exist_ok=True)
            (fetched / part.name / "target" / "dependency").rename(folder)
    libraries = {_stem(jar.name) for jar in (home / "lib").iterdir()}
    for module in _MODULES:
        folder = home / "modules" / module.name
        known = set(libraries)
        if module.extends:
            known |= {_stem(jar.name) for jar in (home / "modules" / module.extends).iterdir()}
        for jar in folder.iterdir():
            if _stem(jar.name) in known:
                jar.unlink()
        _describe(folder, module)
    if ml:
        _natives(_files(fetched, _ML_NATIVES.name), home)
    shutil.rmtree(fetched)
    for name in _EXPECTED:
        (home / name).mkdir()
    for path in (home, *home.rglob("*")):  # whatever the umask made of them
        path.chmod(0o755 if path.is_dir() else 0o644)


def _fetch(folder: Path, recipe: list[Part]) -> None:
    """Have Maven copy each part's files to ``folder/<part>/target/dependency``, in one run."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise ServerError("there is no mvn")
    for part in recipe:
        (folder / part.name).mkdir(parents=True)
        _pom(folder / part.name, "".join(_dependency(a, part.alone) for a in part.artefacts))
    modules = "".join(f"<module>{escape(part.name)}</module>" for part in recipe)
    _pom(folder, f"<modules>{modules}</modules>", inner=False)
    done = subprocess.run(
        [mvn, "-B", "-q", "-f", str(folder / "pom.xml"), _COPY, "-DincludeScope=runtime"],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=_DOWNLOAD_SECONDS,
    )
    if done.returncode:
        raise ServerError(f"mvn failed:\n{(done.stdout + done.stderr)[-4000:]}")


def _pom(folder: Path, content: str, *, inner: bool = True) -> None:
    name = re.sub(r"\W+", "-", folder.name) if inner else "all"
    if inner:
        content = f"<dependencies>{content}</dependencies>"
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>steelyard.servers</groupId>"
        f"<artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>"
        f"{content}</project>\n",
        encoding="utf-8",
    )


def _dependency(artefact: str, alone: bool) -> str:
    tags = ("groupId", "artifactId", "version", "type", "classifier")
    values = zip(tags, artefact.split(":"), strict=False)
    inside = "".join(f"<{tag}>{escape(value)}</{tag}>" for tag, value in values)
    if alone:
        anything = "<groupId>*</groupId><artifactId>*</artifactId>"
        inside += f"<exclusions><exclusion>{anything}</exclusion></exclusions>"
    return f"<dependency>{inside}</dependency>"


def _files(fetched: Path, part: str) -> list[Path]:
    return sorted((fetched / part / "target" / "dependency").iterdir())


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
