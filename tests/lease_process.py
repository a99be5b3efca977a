"""A process that takes a lease and says so, for tests that kill it or stop it.

Arguments: the store (a folder, or an OpenSearch's ``port/alias``), seconds of life, seconds to
wait. It prints ``held TOKEN`` or ``refused``, then for each line it reads: ``ok``, or ``lost``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from steelyard.indexer.lease import Lease, LeaseHeldError, LeaseLostError
from steelyard.plugin.records import RecordStore


def open_store(place: str) -> RecordStore:
    if place.startswith("/"):
        from steelyard.plugin.folder_records import FolderRecords

        return FolderRecords(Path(place))
    from steelyard.plugin.opensearch.connection import Connection
    from steelyard.plugin.opensearch.records import OpenSearchRecords
    from steelyard.plugin.opensearch.settings import Settings

    port, alias = place.split("/")
    return OpenSearchRecords(Connection(Settings("127.0.0.1", int(port))), alias)


def main(place: str, seconds: float, wait: float) -> None:
    store = open_store(place)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        lease = Lease.take(store, "job", owner="a test", seconds=seconds, wait=wait)
    except LeaseHeldError:
        print("refused", flush=True)
        return
    with lease:
        print("held", lease.holder.token, flush=True)
        for _ in sys.stdin:
            try:
                lease.check()
            except LeaseLostError:
                print("lost", flush=True)
                continue
            print("ok", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
