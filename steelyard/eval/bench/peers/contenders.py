"""All contenders by name."""

from __future__ import annotations

from steelyard.errors import InputError
from steelyard.eval.bench.peers.bm25 import Bm25s, Bm25sTokenise
from steelyard.eval.bench.peers.fastembed_sparse import FastEmbedSparse
from steelyard.eval.bench.peers.full_model import CausalPeer, FullModelPeer
from steelyard.eval.bench.peers.look_up import LookUp
from steelyard.eval.bench.peers.peer import BOTH, DENSE, SPARSE, Peer
from steelyard.eval.bench.peers.sparse_static import SparseStatic
from steelyard.eval.bench.peers.static_embedding import StaticEmbedding
from steelyard.eval.bench.peers.static_model2vec import Model2Vec
from steelyard.eval.bench.peers.tokenizer_alone import TokenizerAlone

OURS = LookUp("look-up", "look-up, dense", DENSE)
"""What the others' speed is compared with."""

_ALL: tuple[Peer, ...] = (
    OURS,
    LookUp("look-up-sparse", "look-up, sparse", SPARSE),
    LookUp("look-up-both", "look-up, both arms", BOTH),
    LookUp("look-up-cold", "look-up, both arms, cold", BOTH, cold=True),
    TokenizerAlone(),
    Model2Vec(),
    StaticEmbedding(),
    FastEmbedSparse(),
    SparseStatic(),
    Bm25sTokenise(),
    Bm25s(),
    FullModelPeer(),
    CausalPeer(),
)
PEERS: dict[str, Peer] = {peer.name: peer for peer in _ALL}


def choose(only: str | None) -> list[Peer]:
    """Those named, comma-separated, and always ours; None is all.

    Raises:
        InputError: an unknown name.
    """
    if only is None:
        return list(PEERS.values())
    names = {name.strip() for name in only.split(",") if name.strip()}
    unknown = sorted(names - PEERS.keys())
    if unknown or not names:
        raise InputError(
            f"no contender {', '.join(unknown) or 'named'}", f"known: {', '.join(PEERS)}"
        )
    return [peer for peer in PEERS.values() if peer.name in names | {OURS.name}]
