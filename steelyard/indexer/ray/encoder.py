"""Portions encoded by actors of a Ray cluster, each on a GPU or on processors.

Why actors and not a Ray Data pipeline: the corpus is one stream with checks over all of it
(duplicate ids, line numbers, the place to go on from, standard input), which this process reads,
and the journal wants shards in order. Ray Data takes no such stream from its caller: it would
have to hold the whole corpus first, or run in windows and open every model anew for each. Actors
fed one portion at a time hold a few portions, and lose one when a process dies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.errors import SteelyardError, first_line, needs_extra
from steelyard.indexer.encoding.group import EncodedGroup
from steelyard.indexer.encoding.in_order import Advance, PortionT
from steelyard.indexer.encoding.manifest import EncodingPlan
from steelyard.indexer.ray.cluster import actor_count, connected
from steelyard.indexer.ray.settings import RaySettings
from steelyard.indexer.ray.worker import Worker

with needs_extra("ray"):
    import ray
    from ray.exceptions import RayError, RayTaskError

MOST_DEATHS = 3
"""Processes that one portion may bring down before the job gives up on it."""

AHEAD = 3
"""Portions in flight for each actor: those that wait for an earlier one to be written."""

_POLL = 0.2
"""Seconds after which ``advance`` is asked whether to go on."""


@dataclass(slots=True, eq=False)
class _Task:
    """A portion on its way."""

    portion: Any
    done: EncodedGroup | None = None
    deaths: int = 0
    ready: bool = False


@dataclass(slots=True)
class RayEncoder:
    """Portions encoded on a Ray cluster.

    A process or machine that dies costs its portion, which goes to another actor, and is replaced
    when the cluster has the room. The model and the pack must be reachable from every machine.

    Args:
        open_encoder: opens the model, in a worker: it must be picklable.
        plan: sizes of vectors and batches.
        settings: which cluster.
        say: told of processes that died.
    """

    open_encoder: Callable[[], DocumentEncoder]
    plan: EncodingPlan
    settings: RaySettings = field(default_factory=RaySettings)
    say: Callable[[str], None] = lambda _: None

    def encode(
        self, portions: Iterable[PortionT], advance: Advance
    ) -> Iterator[tuple[PortionT, EncodedGroup | None]]:
        """See ``PortionEncoder``; a cluster is asked for when there is something to encode."""
        source = iter(portions)
        first = None
        for first in source:
            if first.documents:
                break
            yield first, None
            first = None
        if first is None:
            return
        with ExitStack() as held:
            held.enter_context(connected(self.settings))
            pool = _Pool(self, actor_count(self.settings))
            held.callback(pool.close)
            tasks = _Tasks(first, source, pool.size * AHEAD)
            for task in pool.run(tasks, advance):
                yield task.portion, task.done


class _Tasks:
    """Portions in order: the next to give out, and those not yet written."""

    def __init__(self, first: Any, rest: Iterator[Any], most: int) -> None:
        self._source = self._chain(first, rest)
        self._most = most
        self._again: deque[_Task] = deque()
        self._open: deque[_Task] = deque()
        self._more = True

    @staticmethod
    def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
        yield first
        yield from rest

    def take(self) -> _Task | None:
        """One to encode: None when there is none now, or none may be begun now."""
        if self._again:
            return self._again.popleft()
        while self._more and len(self._open) < self._most:
            try:
                task = _Task(next(self._source))
            except StopIteration:
                self._more = False
                return None
            self._open.append(task)
            if task.portion.documents:
                return task
            task.ready = True
        return None

    def give_back(self, task: _Task) -> None:
        """Whoever had it died."""
        self._again.append(task)

    def finished(self) -> Iterator[_Task]:
        """Those done, as far as all before them are done."""
        while self._open and self._open[0].ready:
            yield self._open.popleft()

    @property
    def left(self) -> bool:
        """Whether anything is still to come."""
        return self._more or bool(self._open)


class _Pool:
    """The actors: idle, busy with a task, or opening their model."""

    def __init__(self, job: RayEncoder, size: int) -> None:
        self._job, self.size = job, size
        self._actor = ray.remote(Worker).options(
            num_cpus=job.settings.cpus_per_actor,
            num_gpus=job.settings.gpus_per_actor,
            max_restarts=0,  # a new one is started where there is room; others go on meanwhile
        )
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, _Task]] = {}
        self._opening: dict[Any, Any] = {}
        self._failures = 0
        # The opener goes to the cluster once, not with every actor.
        self._opener = ray.put(job.open_encoder)
        for _ in range(size):
            self._start()

    def run(self, tasks: _Tasks, advance: Advance) -> Iterator[_Task]:
        """All tasks, in order."""
        while tasks.left:
            while self._idle and (task := tasks.take()) is not None:
                actor = self._idle.pop()
                reference = actor.encode.remote(list(task.portion.documents))
                self._busy[reference] = actor, task
            yield from tasks.finished()
            waiting = [*self._busy, *self._opening]
            if not waiting or not tasks.left:
                continue
            done, _ = ray.wait(waiting, num_returns=1, timeout=_POLL)
            for reference in done:
                if reference in self._opening:
                    self._opened(reference)
                else:
                    self._encoded(reference, tasks, advance)
            advance(0)
        yield from tasks.finished()

    def close(self) -> None:
        """Stop the actors: a cluster of someone else's must not keep them."""
        actors = [*self._idle, *self._opening.values(), *(a for a, _ in self._busy.values())]
        for actor in actors:
            ray.kill(actor)

    def _start(self) -> None:
        actor = self._actor.remote(self._opener, self._job.plan)
        self._opening[actor.open.remote()] = actor

    def _opened(self, reference: Any) -> None:
        actor = self._opening.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            raise _told(error) from error
        except RayError as error:
            self._failures += 1
            if self._failures > MOST_DEATHS * self.size:
                raise SteelyardError(
                    f"{self._failures} encoder processes died while they opened the model",
                    "look at the memory of the cluster's machines, and at Ray's logs",
                ) from error
            self._start()
        else:
            self._idle.append(actor)

    def _encoded(self, reference: Any, tasks: _Tasks, advance: Advance) -> None:
        actor, task = self._busy.pop(reference)
        try:
            vectors = ray.get(reference)
        except RayTaskError as error:
            raise _told(error) from error
        except RayError as error:
            task.deaths += 1
            first = task.portion.documents[0].id
            if task.deaths >= MOST_DEATHS:
                raise SteelyardError(
                    f"{task.deaths} encoder processes died at the documents from {first!r} on",
                    "look at the memory of the cluster's machines, and at Ray's logs",
                ) from error
            self._job.say(f"an encoder process died: documents from {first!r} on go to another")
            tasks.give_back(task)
            self._start()
        else:
            task.done = vectors.with_documents(task.portion.documents)
            task.ready = True
            self._idle.append(actor)
            advance(len(task.portion.documents))


def _told(error: RayTaskError) -> SteelyardError:
    """What a worker raised, as one of ours."""
    cause = error.cause
    if isinstance(cause, SteelyardError):
        return cause
    return SteelyardError(
        f"an encoder process failed: {first_line(cause if cause is not None else error)}",
        "look at Ray's logs",
    )
