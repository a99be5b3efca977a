"""Leases: who may re-index an alias, and who may write to it, now.

A lease is a record that its holder renews. Nobody compares clocks: who waits for a lease watches
by a clock of its own that the record does not change for the whole of the lease's life, and the
holder counts its life from before its last renewal was sent. So the holder knows that it has lost
the lease before anybody else can take it, also when it was stopped in between.

``job``: one re-index of an alias at a time, for as long as it runs. ``write``: short; a live
change holds it while it appends to the log and applies, a job while it drains and switches. Who
needs both takes ``job`` first.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from steelyard.errors import EngineError, SteelyardError
from steelyard.plugin.records import ConflictError, Record, RecordStore

JOB, WRITE = "job", "write"
PREFIX = "lease-"
"""Before the lease's name, in its record's key."""

LIFE_SECONDS = 60.0
"""How long a lease lives without being renewed: so long a dead job is in the way."""

_RENEWALS = 4
"""In one life."""
_POLLS = 20
"""Looks at someone else's lease, in one life of it."""

Clock = Callable[[], float]


def running_clock() -> float:
    """Seconds that only go forward, also while this machine sleeps where the system knows."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease, as its record says.

    Attributes:
        owner: what it does: "re-index demo".
        host, pid: the process.
        since: when it was taken, UTC.
        renewed: when it was last renewed, by the holder's clock.
        seconds: its life.
        token: another one each time it is taken.
        place: the running system and its table of processes, where that is known: a process id
            means the same process there and nowhere else.
    """

    owner: str
    host: str
    pid: int
    since: str
    renewed: str
    seconds: float
    token: str
    place: str = ""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Holder:
        """As ``value`` says; what it lacks is unknown."""
        return cls(
            str(value.get("owner", "someone")),
            str(value.get("host", "unknown")),
            int(value.get("pid", 0)),
            str(value.get("since", "")),
            str(value.get("renewed", "")),
            float(value.get("seconds", LIFE_SECONDS)),
            str(value.get("token", "")),
            str(value.get("place", "")),
        )

    @property
    def runs_out(self) -> str:
        """When, unless it is renewed; by the holder's clock."""
        try:
            end = datetime.fromisoformat(self.renewed) + timedelta(seconds=self.seconds)
        except ValueError:
            return "unknown"
        return end.isoformat(timespec="seconds")

    @property
    def died_here(self) -> bool:
        """It was a process of this machine that is no more. False where that is not known."""
        if self.place != process_place() or not self.place or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def __str__(self) -> str:
        return f"{self.owner!r}, process {self.pid} on {self.host}, since {self.since}"


class LeaseHeldError(EngineError):
    """Somebody else holds the lease.

    Args:
        name: of the lease.
        holder: who.
    """

    exit_code = 7

    def __init__(self, name: str, holder: Holder) -> None:
        super().__init__(
            f"the {name} lease is held by {holder}; unless it is renewed, it runs out at "
            f"{holder.runs_out}",
            "wait for it, or stop that process: its lease runs out by itself",
        )
        self.name, self.holder = name, holder


class LeaseLostError(EngineError):
    """A lease that was ours is no more."""

    exit_code = 75


class Lease:
    """A lease that is held, and renewed by a thread until it is released.

    Args:
        store: where its record is.
        name: ``job`` or ``write``.
        holder: us.
        record: as it was just written.
        since: ``running_clock`` from before that.
    """

    def __init__(
        self, store: RecordStore, name: str, holder: Holder, record: Record, since: float
    ) -> None:
        self.name, self.holder = name, holder
        self._store, self._version = store, record.version
        self._renewed_at, self._lost, self._taken = since, "", False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"steelyard-{name}", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls,
        store: RecordStore,
        name: str,
        *,
        owner: str,
        seconds: float = LIFE_SECONDS,
        wait: float | None = 0.0,
    ) -> Lease:
        """Take a lease that is free, or that nobody renews for the whole of its life.

        Args:
            store: of the alias.
            name: ``job`` or ``write``.
            owner: what for, told to those who find it held.
            seconds: how long it lives without being renewed.
            wait: seconds to wait for somebody else's; None: until it is free. That of a process of
                this machine that is dead is taken at once: a dead process writes nothing.

        Raises:
            LeaseHeldError: who holds it.
        """
        key, started = PREFIX + name, running_clock()
        seen: tuple[str, float] | None = None
        while True:
            now = running_clock()
            found = store.read(key)
            expected: str | None = None
            if found is not None:
                other = Holder.of(found.value)
                if seen is None or seen[0] != found.version:
                    # Counted from after it was read: it may have been renewed just before.
                    seen = (found.version, running_clock())
                left = other.seconds - (running_clock() - seen[1])
                if left > 0 and not other.died_here:
                    if wait is not None and running_clock() - started >= wait:
                        raise LeaseHeldError(name, other)
                    time.sleep(min(left, other.seconds / _POLLS, 1.0))
                    continue
                expected = found.version
            holder = _us(owner, seconds)
            try:
                record = store.write(key, _value(holder), expected=expected)
            except ConflictError:
                seen = None
                continue
            return cls(store, name, holder, record, now)

    def check(self) -> None:
        """Go on only if this lease is still held.

        Raises:
            LeaseLostError: it ran out, or somebody else took it.
        """
        if not self._lost and running_clock() - self._renewed_at >= self.holder.seconds:
            self._lost = f"it was not renewed for {self.holder.seconds:g} s"
        if self._lost:
            raise self._error()

    def renew(self) -> None:
        """Renew it now: its whole life lies ahead when this returns.

        Raises:
            LeaseLostError: it ran out, or somebody else took it.
            EngineError: the store cannot be reached; the lease is held until it runs out.
        """
        with self._lock:
            self.check()
            if self._stop.is_set():
                return
            now = running_clock()
            renewed = _us(self.holder.owner, self.holder.seconds, self.holder)
            record = self._renewed(renewed)
            self._version, self._renewed_at = record.version, now
            # A process that was stopped in the middle of it may be late.
            self.check()

    def regain(self) -> None:
        """Go on with this lease also where it ran out, if nobody has taken it since.

        For work that waits longer than a lease lives for a server that is away, and that harms
        nobody when it is late. Whoever takes a lease writes its record: one that is still as we
        left it was nobody else's meanwhile.

        Raises:
            LeaseLostError: somebody else took it.
            EngineError: the store cannot be reached.
        """
        with suppress(LeaseLostError):
            self.check()
            return
        with self._lock:
            if self._taken or self._stop.is_set():
                raise self._error()
            now = running_clock()
            record = self._renewed(_us(self.holder.owner, self.holder.seconds, self.holder))
            self._version, self._renewed_at, self._lost = record.version, now, ""
        self.check()

    def release(self) -> None:
        """Let others have it at once; what cannot be released runs out."""
        self._stop.set()
        self._thread.join(self.holder.seconds / _RENEWALS)
        with suppress(SteelyardError):
            self._store.remove(PREFIX + self.name, expected=self._version)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _keep(self) -> None:
        """Renew until it is released or somebody else has it."""
        every = self.holder.seconds / _RENEWALS
        while not self._stop.wait(every):
            try:
                self.renew()
            except LeaseLostError:
                if self._taken:
                    return
            except SteelyardError:
                continue  # the store is away: tried again until the lease's life is over

    def _renewed(self, holder: Holder) -> Record:
        key, value = PREFIX + self.name, _value(holder)
        try:
            return self._store.write(key, value, expected=self._version)
        except ConflictError:
            found = self._store.read(key)
        if found is not None and found.value.get("token") == holder.token:
            # A renewal that was given up has arrived after all.
            with suppress(ConflictError):
                return self._store.write(key, value, expected=found.version)
            found = self._store.read(key)
        taken = "somebody else" if found is None else str(Holder.of(found.value))
        self._lost, self._taken = f"{taken} has taken it", True
        raise self._error()

    def _error(self) -> LeaseLostError:
        return LeaseLostError(
            f"the {self.name} lease of {self.holder.owner!r} is lost: {self._lost}",
            "nothing more is written: run the same command again",
        )


def holder_of(store: RecordStore, name: str) -> Holder | None:
    """Who holds a lease, or held it last and did not let go; None: nobody."""
    found = store.read(PREFIX + name)
    return None if found is None else Holder.of(found.value)


def host_name() -> str:
    """Of this machine, as leases say it."""
    return socket.gethostname()


def process_place() -> str:
    """Where this process' id is its own: this boot of this machine, and its PID namespace.

    Containers of one machine have other namespaces, machines of one name another boot. Empty
    where the system does not tell.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _us(owner: str, seconds: float, before: Holder | None = None) -> Holder:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    since, token = (now, uuid.uuid4().hex) if before is None else (before.since, before.token)
    return Holder(owner, host_name(), os.getpid(), since, now, seconds, token, process_place())


def _value(holder: Holder) -> dict[str, Any]:
    return {name: getattr(holder, name) for name in Holder.__dataclass_fields__}
