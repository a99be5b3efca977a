"""The README of an export: what is in it, and Pyserini's commands for our run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steelyard.encoders.pack.metadata import FusionDefaults
from steelyard.plugin.engine import DENSE, SPARSE

if TYPE_CHECKING:
    from steelyard.eval.pyserini.export import PyseriniExport

HITS = 1000

_HEAD = """\
# An index for Pyserini

Written by Steelyard from {source}, with the query pack {pack_id}.

Pyserini 1.6 with Python 3.11 or newer, faiss-cpu, pandas, and a Java of 21 or newer that
`JAVA_HOME` names. Run the commands in this folder.

```sh
export PATH="$JAVA_HOME/bin:$PATH"  # trec_eval takes the first Java there
export OPENAI_API_KEY=none  # Pyserini is not imported without any
```
"""

_INDEX = """
## The sparse arm

```sh
python -m pyserini.index.lucene --collection JsonVectorCollection --input collection \\
  --index lucene --generator DefaultLuceneDocumentGenerator --threads 2 --impact --pretokenized
```

{documents:,} documents are in `collection/`. {empty:,} have no term, and Anserini leaves them out
(it says `empty`): the index counts {lucene_documents:,}.
"""

_SPARSE = """
```sh
python -m pyserini.search.lucene --impact --index lucene --encoder queries/sparse.jsonl \\
  --min-idf -1 --topics queries/topics.json --hits {hits} --output runs/sparse.trec
```

Impacts are floor({document_scale:g} x weight), at most 512, and the query's weights
round({query_scale} x weight), so a score is {factor:,.0f} times Steelyard's up to the rounding of
the query: a term's weight is off by {error:g} at most. Without `--min-idf -1`, terms that every
document has are left out.
"""

_DENSE = """
## The dense arm

```sh
python -m pyserini.search.faiss --index faiss --encoded-queries queries \\
  --topics queries/topics.json --hits {hits} --output runs/dense.trec
```

`faiss/` holds {faiss_documents:,} vectors, every one compared with the query by inner product: the
scores are Steelyard's. A query without a known token ({without_dense:,} here) gets documents of
score 0; Steelyard gives it none.
"""

_BOTH = """
## Both

```sh
python - <<'END'
import pandas as pd
from pyserini.fusion import {function}
from pyserini.trectools import RescoreMethod, TrecRun

def read(arm):
    run, kinds = TrecRun(), {{"topic": str, "docid": str}}
    run.run_data = pd.read_csv(
        f"runs/{{arm}}.trec", sep=" ", names=TrecRun.columns, dtype=kinds, keep_default_na=False
    )
    return run

runs = [read("dense"), read("sparse")]
{fuse}
fused.save_to_txt("runs/hybrid.trec", tag="hybrid")
END
```

{explained} `TrecRun(path)` is not used to read the runs, because it makes numbers of
query ids: `007` is 7, and a run whose ids are all numbers does not join one where they are not.
"""

_MIN_MAX_FUSE = """\
runs = [run.rescore(RescoreMethod.NORMALIZE) for run in runs]
fused = interpolation(runs, alpha={alpha:g}, k={hits})"""

_MIN_MAX_EXPLAINED = """\
That is min-max over each arm's {hits:,} best, {dense:g} dense and {sparse:g} sparse, as in
Steelyard. (`python -m pyserini.fusion --method normalize` weighs the arms alike, and `--method
interpolation` does not normalise.)"""

_RRF_FUSE = "fused = reciprocal_rank_fusion(runs, rrf_k={rrf_k}, k={hits})"

_RRF_EXPLAINED = "That is RRF, as in Steelyard."

_MEASURE = """
## Measures

```sh
for run in runs/*.trec; do
  python -m pyserini.eval.trec_eval -c -m ndcg_cut.10 -m recall.100 queries/qrels.txt "$run"
done
```

`-c` counts a query that found nothing as 0. {queries:,} queries, {judgements:,} judgements.
`queries/topics.tsv` is the same topics for other tools.
"""

_NO_QUERIES = """
## Queries

None were exported. In Python:

```python
from steelyard.eval.pyserini.environment import prepare_pyserini
from steelyard.eval.pyserini.query_encoders import {names}

prepare_pyserini()
```

and then `LuceneImpactSearcher("lucene", ImpactQueryEncoder(pack, {query_scale}), min_idf=-1)` or
`FaissSearcher("faiss", DenseQueryEncoder(pack))`.
"""


def readme(made: PyseriniExport, fusion: FusionDefaults) -> str:
    """The text of README.md; every command in it runs as it stands."""
    values: dict[str, object] = {
        "hits": HITS,
        "source": made.source,
        "pack_id": made.pack_id,
        "documents": made.documents,
        "empty": made.empty,
        "lucene_documents": made.lucene_documents,
        "faiss_documents": made.faiss_documents,
        "document_scale": made.document_scale,
        "query_scale": made.query_scale,
        "factor": made.document_scale * made.query_scale,
        "error": 0.5 / made.query_scale,
        "names": "DenseQueryEncoder, ImpactQueryEncoder",
        "dense": fusion.dense_weight,
        "sparse": fusion.sparse_weight,
        "alpha": fusion.dense_weight / ((fusion.dense_weight + fusion.sparse_weight) or 1),
        "rrf_k": fusion.rrf_k,
    }
    if fusion.method == "rrf":
        function, fuse, explained = "reciprocal_rank_fusion", _RRF_FUSE, _RRF_EXPLAINED
    else:
        function, fuse, explained = "interpolation", _MIN_MAX_FUSE, _MIN_MAX_EXPLAINED
    values |= {
        "function": function,
        "fuse": fuse.format(**values),
        "explained": explained.format(**values),
    }
    if made.queries is not None:
        values |= {
            "queries": made.queries.count,
            "judgements": made.queries.judgements,
            "without_dense": made.queries.without_dense,
        }
    sections = [_HEAD]
    if SPARSE in made.arms:
        sections.append(_INDEX)
    if made.queries is None:
        sections.append(_NO_QUERIES)
    else:
        if SPARSE in made.arms:
            sections.append(_SPARSE)
        if DENSE in made.arms:
            sections.append(_DENSE)
        if len(made.arms) == 2:
            sections.append(_BOTH)
        sections.append(_MEASURE)
    return "".join(section.format(**values) for section in sections)
