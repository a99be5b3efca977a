"""The look-up as an ONNX graph: gather rows, mask, sum, normalise.

The table is written behind the graph slice by slice, in protobuf's own encoding: the library
would hold it three times. The file is an ordinary ONNX model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from steelyard.encoders.export.source import ExportSource
from steelyard.errors import InputError, needs_extra
from steelyard.types import DenseVectors

OPSET, IR_VERSION = 18, 8
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # fields of ModelProto, GraphProto, TensorProto
_SLACK = 1 << 16  # the graph itself, generously


def write_graph(source: ExportSource, path: Path, *, one_file: bool = False) -> bool:
    """Write the graph; a table over the protobuf limit goes to ``<path>.data`` beside it.

    Inputs ``input_ids`` and ``attention_mask``, int64 ``[batch, length]``; output
    ``sentence_embedding``, float32 ``[batch, dims]``, unit rows, zero where no token is known.

    Args:
        source: what is exported.
        path: the .onnx file.
        one_file: whether external data is not allowed.

    Returns:
        Whether the table is external data.

    Raises:
        InputError: the table does not fit into one file and has to.
        MissingExtraError: onnx is not installed.
    """
    with needs_extra("onnx"):
        import onnx
    scale_bytes = 4 * source.rows if source.dtype == "int8" else 0
    needed, limit = source.table_bytes + scale_bytes + _SLACK, source.protobuf_limit
    external = needed > limit
    if external and one_file:
        raise InputError(
            f"the ONNX file would have {needed:,} bytes, protobuf allows {limit:,}",
            "cut columns with --dims, or use --dtype float16 or int8",
        )
    model = _model(source)
    graph = model.graph.SerializeToString()
    model.ClearField("graph")
    table = onnx.TensorProto(
        name="table",
        dims=[source.rows, source.dims],
        data_type=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(source.dtype)),
    )
    scale = onnx.TensorProto(
        name="scale", dims=[source.rows], data_type=onnx.TensorProto.FLOAT
    ).SerializeToString()
    if external:
        table.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {
            "location": f"{path.name}.data",
            "offset": "0",
            "length": str(source.table_bytes),
        }.items():
            table.external_data.add(key=key, value=value)
    start = table.SerializeToString()
    inline = 0 if external else source.table_bytes
    tensors = _tensor_start(start, inline), _tensor_start(scale, scale_bytes)
    size = len(graph) + len(tensors[0]) + inline
    size += len(tensors[1]) + scale_bytes if scale_bytes else 0
    with path.open("wb") as stream:
        stream.write(model.SerializeToString() + _tag(_GRAPH) + _varint(size) + graph)
        stream.write(tensors[0])
        if external:
            with path.with_name(f"{path.name}.data").open("wb") as data:
                scales = _write_blocks(source, data)
        else:
            scales = _write_blocks(source, stream)
        if scale_bytes:
            stream.write(tensors[1])
            stream.write(np.concatenate(scales).data)
    return external


def session(model: Path) -> Callable[[Sequence[Sequence[int]]], DenseVectors]:
    """The graph in onnxruntime: rows of token ids to vectors ``[n, dims]``.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """
    runtime = import_module("onnxruntime").InferenceSession(
        str(model), providers=["CPUExecutionProvider"]
    )

    def encode(rows: Sequence[Sequence[int]]) -> DenseVectors:
        length = max(map(len, rows), default=0)
        ids: NDArray[np.int64] = np.zeros((len(rows), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        vectors: DenseVectors = runtime.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    return encode


def _model(source: ExportSource) -> Any:
    """The model without its table and scales."""
    from onnx import TensorProto, helper

    def node(operator: str, inputs: list[str], output: str, **settings: Any) -> Any:
        return helper.make_node(operator, inputs, [output], name=output, **settings)

    plain, scaled = source.dtype == "float32", source.dtype == "int8"
    nodes = [
        node("Gather", ["table", "input_ids"], "rows" if plain else "stored_rows"),
        node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT),
    ]
    if not plain:
        nodes.append(node("Cast", ["stored_rows"], "rows", to=TensorProto.FLOAT))
    if scaled:
        nodes.append(node("Gather", ["scale", "input_ids"], "scales"))
        nodes.append(node("Mul", ["mask", "scales"], "factors"))
    nodes += [
        node("Unsqueeze", ["factors" if scaled else "mask", "last_axis"], "column"),
        node("Mul", ["rows", "column"], "masked_rows"),
        node("ReduceSum", ["masked_rows", "length_axis"], "sum", keepdims=0),
        node("LpNormalization", ["sum"], "unit", axis=-1, p=2),
        # What 0 / 0 is, is left open before opset 22: some runtimes say 0, some NaN.
        node("IsNaN", ["unit"], "undefined"),
        node("Where", ["undefined", "zero", "unit"], "sentence_embedding"),
    ]
    shape = ["batch", "length"]
    graph = helper.make_graph(
        nodes,
        "steelyard_query_look_up",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info(
                "sentence_embedding", TensorProto.FLOAT, ["batch", source.dims]
            )
        ],
        [
            helper.make_tensor("last_axis", TensorProto.INT64, [1], [-1]),
            helper.make_tensor("length_axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="steelyard",
    )
    helper.set_model_props(
        model, {"pack_id": source.metadata.pack_id, "dense_space": source.dense_space}
    )
    return model


def _write_blocks(source: ExportSource, stream: BinaryIO) -> list[NDArray[np.float32]]:
    scales = []
    for block, scale in source.blocks():
        stream.write(block.data)
        if scale is not None:
            scales.append(scale)
    return scales


def _tensor_start(fields: bytes, raw_bytes: int) -> bytes:
    """A TensorProto as an initializer, up to where ``raw_bytes`` raw numbers follow."""
    if raw_bytes:
        fields += _tag(_RAW_DATA) + _varint(raw_bytes)
    return _tag(_INITIALIZER) + _varint(len(fields) + raw_bytes) + fields


def _tag(field: int) -> bytes:
    return _varint(field << 3 | 2)  # wire type 2: length-delimited


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)
