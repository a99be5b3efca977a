"""A causal model to a query pack: one table an instruction, counts for the sparse arm."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steelyard.config import cache_dir
from steelyard.encoders.array_file import read_array, write_array
from steelyard.encoders.causal.reachable import reachable_tokens
from steelyard.encoders.causal.table import TableRows
from steelyard.encoders.causal.tokens import CausalTokenizer
from steelyard.encoders.causal.tower import DEFAULT_MAX_TERMS, CausalEncoder
from steelyard.encoders.folder_lock import locked_folder
from steelyard.encoders.pack.files import refuse_taken, write_pack
from steelyard.encoders.pack.metadata import (
    IMPACT_SCALE,
    LM_HEAD,
    QUERY_MAX_TOKENS,
    DenseArm,
    PackMetadata,
    SparseArm,
)
from steelyard.encoders.pack.spaces import short_hash, vocabulary_hash
from steelyard.encoders.query.tables import check_dtype, table_tensors
from steelyard.encoders.query.tokenizer import load_tokenizer
from steelyard.errors import InputError, SteelyardError
from steelyard.progress import Progress

PROMPT_TEMPLATE = "Instruct: {task}\nQuery: "
"""LightRetriever's, section 1. It stands before queries only; documents have none."""

SPARSE_TEXT_PREFIX = " "
CHUNK_ROWS = 2048


def prompt_of(task: str, template: str = PROMPT_TEMPLATE) -> str:
    """What stands before the queries of a task, whatever braces the task holds."""
    return template.replace("{task}", task)


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What to build.

    Attributes:
        model, adapter, gguf_file, revision: of the tower; see ``CausalEncoder``.
        tasks: instruction name -> task; the first is the pack's default.
        prompt_template: how a task becomes a prompt; ``{task}`` is replaced.
        sparse: kind of the sparse arm: ``lm-head``.
        max_length: documents are cut to this many tokens.
        dims: first components of the vectors to keep (MRL); None keeps all.
        max_terms: heaviest terms a document; None keeps all.
        query_max_tokens: longer queries are cut and flagged.
        lowercase: lower-case all texts.
        all_rows: also make rows of tokens that no query can have; they are zero otherwise.
        rows_for: make only the rows that these queries need, which takes seconds; any other query
            lacks words. None makes them all.
        dtype: of the tables: float32, float16 or int8.
        precision, device: see ``open_causal_model``.
        name, licence: of the pack.
    """

    model: str
    tasks: dict[str, str]
    adapter: str | None = None
    gguf_file: str | None = None
    revision: str | None = None
    prompt_template: str = PROMPT_TEMPLATE
    sparse: str = LM_HEAD
    max_length: int = 512
    dims: int | None = None
    max_terms: int | None = DEFAULT_MAX_TERMS
    query_max_tokens: int = QUERY_MAX_TOKENS
    lowercase: bool = True
    all_rows: bool = False
    rows_for: Sequence[str] | None = None
    dtype: str = "float32"
    precision: str = "auto"
    device: str | None = None
    name: str = ""
    licence: str = ""
    prompts: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Refuse settings now rather than after hours of work."""
        check_dtype(self.dtype)
        if self.all_rows and self.rows_for is not None:
            raise InputError("all rows, and those of some queries", "choose one")
        if self.sparse != LM_HEAD:
            raise InputError(f"unknown sparse kind {self.sparse!r}", f"choose {LM_HEAD}")
        if not self.tasks:
            raise InputError("no instruction", "give --task 'what a query asks for'")
        if "{task}" not in self.prompt_template:
            raise InputError(
                f"the prompt template {self.prompt_template!r} has no {{task}}",
                f"for example {PROMPT_TEMPLATE!r}",
            )
        for name in self.tasks:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise InputError(
                    f"instruction name {name!r}", "letters, digits, hyphen and underscore only"
                )
        prompts = {n: prompt_of(t, self.prompt_template) for n, t in self.tasks.items()}
        object.__setattr__(self, "prompts", prompts)


def build_pack(
    job: BuildJob,
    out: Path,
    progress: Progress,
    *,
    work: Path | None = None,
    overwrite: bool = False,
) -> PackMetadata:
    """Build the tables of all instructions and write the pack.

    Finished rows are kept in ``work`` until the pack is written, so that a killed job goes on.

    Args:
        job: what to build.
        out: the pack's folder.
        progress: shows the stages.
        work: where finished rows go meanwhile; None is a folder of the cache, named by
            everything the rows depend on.
        overwrite: replace a pack that is there.

    Raises:
        InputError: the model or a setting cannot be used.
        SteelyardError: the model gives NaN or infinite rows.
    """
    refuse_taken(out, overwrite)
    default = next(iter(job.tasks))
    with progress.stage("open the model"):
        tower = CausalEncoder(
            job.model,
            adapter=job.adapter,
            gguf_file=job.gguf_file,
            revision=job.revision,
            max_length=job.max_length,
            dims=job.dims,
            max_terms=job.max_terms,
            query_prompt=job.prompts[default],
            lowercase=job.lowercase,
            precision=job.precision,
            device=job.device,
            say=progress.say,
        )
    tokens = tower.tokens
    load_tokenizer(tokens.text, job.model, tokens.rows)
    wanted = _wanted(tokens, job, progress.say)
    tensors = {}
    finished: set[Path] = set()
    for name, prompt in job.prompts.items():
        key = short_hash([tower.spec.weights, prompt, tower.precision, wanted.tolist()])
        folder = (work or cache_dir() / "tables") / key
        finished.add(folder)
        with (
            locked_folder(folder),
            progress.stage(f"table {name!r}", len(wanted)) as advance,
        ):
            rows = _table(tower, prompt, wanted, folder, advance, progress.say)
        tensors.update(table_tensors(rows[:, : tower.dims], job.dtype, name))
    ignored = [] if tokens.pad is None else [tokens.pad]
    metadata = PackMetadata(
        name=job.name or f"{Path(job.model).name}-lookup",
        vocabulary=vocabulary_hash(tokens.text),
        document_encoder=tower.spec,
        dense=DenseArm(
            dims=tower.dims,
            rows=tokens.rows,
            dtype=job.dtype,
            tables=job.prompts,
            default_table=default,
            text_prefix="",
            query_max_tokens=job.query_max_tokens,
            ignored_ids=ignored,
        ),
        sparse=SparseArm(
            kind=LM_HEAD,
            scale=IMPACT_SCALE,
            text_prefix=SPARSE_TEXT_PREFIX,
            query_max_tokens=job.query_max_tokens,
            max_terms=job.max_terms,
            ignored_ids=[],
        ),
        provenance={
            "recipe": {"method": "LightRetriever table", "tasks": job.tasks},
            "document_precision": tower.precision,
            "made_tokens": list(tokens.made),
            "rows_made": len(wanted),
        },
        licence=job.licence,
    )
    counts = np.ones(tokens.rows, dtype=np.float32)
    sealed = write_pack(out, metadata, tokens.text, tensors, counts, overwrite=overwrite)
    for folder in finished:
        shutil.rmtree(folder, ignore_errors=True)
    return sealed


def _wanted(
    tokens: CausalTokenizer, job: BuildJob, say: Callable[[str], None]
) -> NDArray[np.int64]:
    """Ids whose rows are made, ascending."""
    if job.rows_for is not None:
        rows = tokens.ids(job.rows_for, job.query_max_tokens + 2)
        found = np.unique([token for row in rows for token in row[1:-1]]).astype(np.int64)
        if not len(found):
            raise InputError("no token in the queries whose rows are wanted", "give others")
        say(f"rows of the {len(found):,} tokens of {len(rows):,} queries only: others lack words")
        return found
    if job.all_rows:
        return np.arange(tokens.rows)
    reachable = np.flatnonzero(reachable_tokens(tokens.text))
    if len(reachable) < tokens.rows:
        say(
            f"{tokens.rows - len(reachable):,} of {tokens.rows:,} tokens are in no lower-cased "
            "query: their rows stay zero"
        )
    return reachable


def _table(
    tower: CausalEncoder,
    prompt: str,
    wanted: NDArray[np.int64],
    folder: Path,
    advance: Callable[[int], None],
    say: Callable[[str], None],
) -> NDArray[np.float32]:
    """Rows ``[V, hidden size]`` of one instruction; chunks that are there are read."""
    table = np.zeros((tower.tokens.rows, tower.model.dims), dtype=np.float32)
    maker: TableRows | None = None
    for first in range(0, len(wanted), CHUNK_ROWS):
        ids = wanted[first : first + CHUNK_ROWS]
        path = folder / f"rows-{first:08d}.npy"
        chunk = read_array(path, (len(ids), tower.model.dims))
        if chunk is None:
            if maker is None:
                maker = TableRows(tower.model, tower.tokens, prompt)
                if not maker.shared:
                    say("this model cannot share a prompt: it is read for every token")
            chunk = maker.rows(ids, advance)
            bad = ~np.isfinite(chunk).all(axis=1)
            if bad.any():
                # A masked NaN is still NaN: one bad row spoils those that shared its sequence.
                chunk[bad] = np.concatenate([maker.rows(ids[[i]]) for i in np.flatnonzero(bad)])
                bad = ~np.isfinite(chunk).all(axis=1)
            if bad.any():
                raise SteelyardError(
                    f"{int(bad.sum())} of {len(ids)} rows are NaN or infinite, the first is that "
                    f"of token {int(ids[bad][0])}",
                    "use a wider --precision, or check the model's weights",
                )
            write_array(path, chunk)
        else:
            advance(len(ids))
        table[ids] = chunk
    return table
