"""The Java machine inside this process, with Lucene and Anserini from Pyserini's jar.

Facts that shape this code: a process has one Java machine for good, and its options are set before
it starts; Pyserini starts the same one, with the same jar; Java would take over Ctrl-C (-Xrs
forbids it); pyjnius is not safe for threads (a method keeps the object it is called of in itself,
and two threads that search crash the process), so one thread of ours makes all calls; strings are
handed over as modified UTF-8, which lacks what is beyond U+FFFF.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from steelyard.errors import EngineError, MissingExtraError, first_line, needs_extra
from steelyard.local_servers.java import find_java

OPTIONS = (
    "-Xrs",
    "--enable-native-access=ALL-UNNAMED",
    "-Dsun.misc.unsafe.memory.access=allow",  # else Java 24 and newer warn of Lucene's use of it
)
_CLASSES = {
    "Level": "java.util.logging.Level",
    "Logger": "java.util.logging.Logger",
    "Paths": "java.nio.file.Paths",
    "String": "java.lang.String",
    "HashMap": "java.util.HashMap",
    "BytesRef": "org.apache.lucene.util.BytesRef",
    "CustomAnalyzer": "org.apache.lucene.analysis.custom.CustomAnalyzer",
    "WhitespaceAnalyzer": "org.apache.lucene.analysis.core.WhitespaceAnalyzer",
    "FSDirectory": "org.apache.lucene.store.FSDirectory",
    "Document": "org.apache.lucene.document.Document",
    "Field": "org.apache.lucene.document.Field",
    "FieldStore": "org.apache.lucene.document.Field$Store",
    "FieldType": "org.apache.lucene.document.FieldType",
    "StringField": "org.apache.lucene.document.StringField",
    "BinaryDocValuesField": "org.apache.lucene.document.BinaryDocValuesField",
    "IntPoint": "org.apache.lucene.document.IntPoint",
    "IndexOptions": "org.apache.lucene.index.IndexOptions",
    "IndexWriter": "org.apache.lucene.index.IndexWriter",
    "IndexWriterConfig": "org.apache.lucene.index.IndexWriterConfig",
    "LogDocMergePolicy": "org.apache.lucene.index.LogDocMergePolicy",
    "SerialMergeScheduler": "org.apache.lucene.index.SerialMergeScheduler",
    "DirectoryReader": "org.apache.lucene.index.DirectoryReader",
    "IndexSearcher": "org.apache.lucene.search.IndexSearcher",
    "BooleanQueryBuilder": "org.apache.lucene.search.BooleanQuery$Builder",
    "Occur": "org.apache.lucene.search.BooleanClause$Occur",
    "QueryParser": "org.apache.lucene.queryparser.classic.QueryParser",
    "ImpactSimilarity": "io.anserini.search.similarity.ImpactSimilarity",
}

_STARTING = threading.Lock()

Result = TypeVar("Result")
Item = TypeVar("Item")


class Jvm:
    """What is called of Java, and the one thread that calls it.

    Attributes:
        classes: Java classes by their short names; to be used in that thread only.
    """

    def __init__(
        self, thread: ThreadPoolExecutor, classes: Mapping[str, Any], exception: type[Exception]
    ) -> None:
        self.classes = classes
        self._thread, self._exception = thread, exception
        # Finalizers may interrupt anything, a put into a queue of another kind too.
        self._left: SimpleQueue[Callable[[], object]] = SimpleQueue()
        # Lucene 9 tells every user of a newer Java to update it. Kept: Java forgets loggers.
        self._logger = classes["Logger"].getLogger("org.apache.lucene")
        self._logger.setLevel(classes["Level"].SEVERE)

    def run(
        self, action: str, function: Callable[[], Result], timeout: float | None = None
    ) -> Result:
        """Call a function that calls Java.

        Args:
            action: what it does, for messages.
            function: run in our thread.
            timeout: seconds to wait for it.

        Raises:
            EngineError: Java threw something, or it takes too long.
        """
        return next(self.map(action, lambda _: function(), [None], timeout))

    def map(
        self,
        action: str,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        timeout: float | None = None,
    ) -> Iterator[Result]:
        """Call a function of each item, in order."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting: list[Future[Result]] = [
            self._thread.submit(self._turn, function, item) for item in items
        ]
        try:
            for future in waiting:
                with self._errors(action, timeout):
                    left = None if deadline is None else max(0.0, deadline - time.monotonic())
                    result = future.result(left)
                yield result
        finally:
            for future in waiting:
                future.cancel()

    def before_next(self, function: Callable[[], object]) -> None:
        """Call a function that calls Java, once, before the next call; finalizers may ask it."""
        self._left.put(function)

    def _turn(self, function: Callable[[Item], Result], item: Item) -> Result:
        while not self._left.empty():  # nobody else takes from it
            with suppress(self._exception):
                self._left.get()()
        return function(item)

    @contextmanager
    def _errors(self, action: str, timeout: float | None) -> Iterator[None]:
        try:
            yield
        except FutureTimeoutError as error:
            raise EngineError(
                f"Lucene did not {action} within {timeout or 0:g} s", "give it more time"
            ) from error
        except self._exception as error:
            raise EngineError(f"Lucene could not {action}: {first_line(error)}") from error


@cache
def requirements() -> tuple[Path, Path]:
    """Anserini's jar and a Java's shared library; looked for without starting anything.

    Raises:
        MissingExtraError: Pyserini or pyjnius is not installed.
        MissingProgramError: no Java 21 or newer.
        EngineError: Pyserini without its jar, or a Java without its library.
    """
    with needs_extra("lucene"):
        import jnius_config  # noqa: F401
    found = importlib.util.find_spec("pyserini")
    if found is None or found.origin is None:
        raise MissingExtraError("pyserini", "lucene")
    folder = os.environ.get("ANSERINI_CLASSPATH") or Path(found.origin).parent / "resources/jars"
    jars = sorted(Path(folder).glob("anserini-*-fatjar.jar"))
    if not jars:
        raise EngineError(f"there is no anserini-*-fatjar.jar in {folder}", "reinstall pyserini")
    home = find_java("Lucene", as_nobody=False).resolve().parents[1]
    for library in ("lib/server/libjvm.so", "lib/server/libjvm.dylib"):
        if (home / library).is_file():
            return jars[-1], home / library
    raise EngineError(f"there is no lib/server/libjvm in {home}", "name another Java in JAVA_HOME")


def start_jvm() -> Jvm:
    """The Java machine of this process; started by the first call.

    Raises:
        EngineError: it does not start, or runs already without Anserini.
    """
    with _STARTING:
        return _jvm()


@cache
def _jvm() -> Jvm:
    jar, library = requirements()
    thread = ThreadPoolExecutor(1, thread_name_prefix="steelyard-java")
    try:
        return thread.submit(_start, thread, jar, library).result()
    except Exception as error:  # pyjnius raises whatever it meets
        thread.shutdown()
        raise EngineError(
            f"Java did not start with Anserini: {first_line(error)}",
            f"java is {library}, the classes are in {jar}",
        ) from error


def _start(thread: ThreadPoolExecutor, jar: Path, library: Path) -> Jvm:
    import jnius_config

    if not jnius_config.vm_running:
        jnius_config.add_classpath(str(jar))
        jnius_config.add_options(*OPTIONS)
    with _environment("JVM_PATH", str(library)), _environment("JAVA_HOME", _home(library)):
        from jnius import JavaException, autoclass

        classes = {name: autoclass(path) for name, path in _CLASSES.items()}
    return Jvm(thread, classes, JavaException)


def _home(library: Path) -> str:
    return str(library.parents[2])


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set for as long as pyjnius looks."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
