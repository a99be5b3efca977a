"""Whole jobs: corpus to shards, and corpus to shards to engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from steelyard.encoders.documents.batching import BATCH_TOKENS
from steelyard.encoders.documents.protocol import DocumentEncoder
from steelyard.encoders.folder_lock import locked_folder
from steelyard.encoders.query.encoder import QueryEncoder
from steelyard.errors import SteelyardError
from steelyard.indexer.changes.encoder import ChangeEncoder, PackChangeEncoder
from steelyard.indexer.encoding.encode import (
    SHARD_DOCUMENTS,
    STOP_SECONDS,
    Encoding,
    encode_corpus,
    forget_shard,
    plan_encoding,
)
from steelyard.indexer.encoding.finished import FinishedShards
from steelyard.indexer.encoding.in_order import PortionEncoder
from steelyard.indexer.encoding.manifest import DamagedShardError, EncodingPlan, Manifest
from steelyard.indexer.encoding.places import shards_folder
from steelyard.indexer.encoding.storage import storing
from steelyard.indexer.flow import Flow
from steelyard.indexer.loading.job import LoadSettings
from steelyard.indexer.loading.load import Loading
from steelyard.indexer.loading.sink import LoadReport, Sink
from steelyard.indexer.ray.settings import RaySettings
from steelyard.indexer.reading.corpus import Corpus
from steelyard.indexer.reading.passages import PassageLength, Splitter
from steelyard.indexer.signals import stop_signals
from steelyard.progress import Progress


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """How to encode.

    Attributes:
        model, adapter: where the document encoder is now, if not where the pack says.
        precision, device: of the document encoder.
        fields: declared metadata fields.
        shards: folder for the shards; None is the cache.
        shard_documents: documents in a shard.
        batch_tokens: padded tokens in a batch.
        max_rejected: stop when more lines are no documents.
        passages: how documents are split, tokens/overlap as in ``256/32``; empty: not.
        ray: encode on this cluster; None: here.
    """

    model: str | None = None
    adapter: str | None = None
    precision: str = "auto"
    device: str | None = None
    fields: dict[str, str] | None = None
    shards: Path | None = None
    shard_documents: int = SHARD_DOCUMENTS
    batch_tokens: int = BATCH_TOKENS
    max_rejected: int | None = None
    passages: str = ""
    ray: RaySettings | None = None


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an indexing job did: read = wholes + rejected, in every engine.

    Attributes:
        shards: their folder.
        manifest: what is in it.
        loads: one for each sink.
    """

    shards: Path
    manifest: Manifest
    loads: list[LoadReport]

    @property
    def load(self) -> LoadReport:
        """Of the first sink."""
        return self.loads[0]


def encode_documents(
    corpus: Corpus,
    pack: QueryEncoder,
    progress: Progress,
    settings: EncodeSettings = EncodeSettings(),
) -> tuple[Path, Manifest]:
    """Encode a corpus with a pack's document encoder.

    Args:
        corpus: what to encode.
        pack: whose documents' spaces the shards will have.
        progress: shows the stages.
        settings: how.

    Returns:
        The shards' folder and its manifest.
    """
    plan = plan_of(corpus, pack, settings)
    folder = settings.shards or shards_folder(plan)
    manifest = encode_corpus(
        corpus,
        plan,
        _opener(pack, settings, progress),
        folder,
        progress,
        max_rejected=settings.max_rejected,
        split=splitter_of(pack, settings),
        encoder=_on_ray(pack, plan, settings, progress),
    )
    return folder, manifest


def index_corpus(
    corpus: Corpus,
    pack: QueryEncoder,
    sinks: Sequence[Sink],
    progress: Progress,
    settings: EncodeSettings = EncodeSettings(),
    loading: LoadSettings = LoadSettings(),  # noqa: B008  (frozen)
    *,
    open_encoder: Callable[[], DocumentEncoder] | None = None,
) -> IndexReport:
    """Encode a corpus with a pack's document encoder, and load each shard as it is finished.

    The same call goes on where an earlier one was interrupted, however it ended.

    Args:
        corpus: what to index.
        pack: whose documents' spaces the index will have.
        sinks: where to.
        progress: shows the stages.
        settings: of the encoding.
        loading: of the loads.
        open_encoder: the document encoder, if it is not to be opened by what the pack says.

    Raises:
        InputError: the corpus or the folder cannot be used.
        EngineError: a sink failed; which one is in the message.
        StorageError: the folder cannot be written.
        InterruptedJobError: by Ctrl-C or SIGTERM.
    """
    taken = corpus.modified()
    plan = plan_of(corpus, pack, settings)
    folder = settings.shards or shards_folder(plan)
    open_encoder = open_encoder or _opener(pack, settings, progress)
    encode_again = open_encoder
    loading = replace(
        loading,
        snapshot=loading.snapshot or taken,
        changes=loading.changes or (lambda: PackChangeEncoder(pack, encode_again)),
    )
    encoding = Encoding(
        corpus,
        plan,
        open_encoder,
        folder,
        progress,
        settings.max_rejected,
        splitter_of(pack, settings),
        _on_ray(pack, plan, settings, progress),
    )
    mended: set[str] = set()
    while True:
        try:
            return _run(encoding, folder, plan, pack, sinks, progress, loading)
        except DamagedShardError as error:
            if error.entry.name in mended:
                raise
            mended.add(error.entry.name)
            progress.say(f"{folder / error.entry.name} is damaged: encoding it again")
            forget_shard(folder, error.entry)


def _run(
    encoding: Encoding,
    folder: Path,
    plan: EncodingPlan,
    pack: QueryEncoder,
    sinks: Sequence[Sink],
    progress: Progress,
    settings: LoadSettings,
) -> IndexReport:
    with ExitStack() as held:
        with storing(folder):
            held.enter_context(locked_folder(folder))
        progress.fact("shards", str(folder))
        signals, flow = held.enter_context(stop_signals()), Flow()
        shards = FinishedShards(flow)
        loading = Loading(flow, shards, folder, plan, pack.metadata, sinks, progress, settings)
        loading.start()
        flow.call(lambda: encoding.start(flow, shards))
        flow.join(signals.wanted, STOP_SECONDS)
        reports = loading.reports()
    if shards.manifest is None:
        raise SteelyardError("the encoding ended early", "run the same command again")
    return IndexReport(folder, shards.manifest, reports)


def plan_of(corpus: Corpus, pack: QueryEncoder, settings: EncodeSettings) -> EncodingPlan:
    """What the shards of a corpus hold when this pack's document encoder makes them."""
    from steelyard.encoders.documents.from_pack import document_precision

    metadata = pack.metadata
    return plan_encoding(
        corpus,
        dense_space=metadata.spaces.dense,
        sparse_space=metadata.spaces.sparse,
        vocabulary_size=pack.vocabulary_size,
        dims=pack.dims,
        precision=document_precision(
            metadata,
            model=settings.model,
            adapter=settings.adapter,
            precision=settings.precision,
            device=settings.device,
        ),
        fields=settings.fields,
        shard_documents=settings.shard_documents,
        batch_tokens=settings.batch_tokens,
        passages=str(PassageLength.parse(settings.passages)) if settings.passages else "",
    )


def splitter_of(pack: QueryEncoder, settings: EncodeSettings) -> Splitter | None:
    """What splits long documents; None leaves them whole."""
    if not settings.passages:
        return None
    return Splitter(pack.tokenizer, PassageLength.parse(settings.passages))


def changes_of(
    pack: QueryEncoder, settings: EncodeSettings, progress: Progress
) -> Callable[[], ChangeEncoder]:
    """What encodes live changes as the shards were."""
    return lambda: PackChangeEncoder(pack, _opener(pack, settings, progress))


def _on_ray(
    pack: QueryEncoder, plan: EncodingPlan, settings: EncodeSettings, progress: Progress
) -> PortionEncoder | None:
    if settings.ray is None:
        return None
    from steelyard.indexer.ray.encoder import RayEncoder
    from steelyard.indexer.ray.tower import PackTower

    tower = PackTower(
        str(Path(pack.where).resolve()),
        settings.model,
        settings.adapter,
        plan.precision,
        settings.device,
    )
    return RayEncoder(tower, plan, settings.ray, progress.say)


def _opener(
    pack: QueryEncoder, settings: EncodeSettings, progress: Progress
) -> Callable[[], DocumentEncoder]:
    def open_encoder() -> DocumentEncoder:
        from steelyard.encoders.documents.from_pack import open_document_encoder

        return open_document_encoder(
            pack,
            model=settings.model,
            adapter=settings.adapter,
            precision=settings.precision,
            device=settings.device,
            say=progress.say,
        )

    return open_encoder
