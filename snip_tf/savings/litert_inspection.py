"""The contents of a LiteRT file: sparse tensors, and operations of TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from snip_tf._keras import litert_schema


def cut_shapes(content: bytes) -> list[list[int]]:
    """Returns the shapes of tensors that the converter may have truncated."""
    found = []
    for graph in _graphs(content):  # a loop over time has tensors of its own
        for i in range(graph.TensorsLength()):
            coding = graph.Tensors(i).Sparsity()
            if coding is None or not coding.BlockMapLength():
                continue
            block = coding.DimMetadata(coding.DimMetadataLength() - 1).DenseSize()
            shape = graph.Tensors(i).ShapeAsNumpy().tolist()
            if shape[-1] % block:
                found.append(shape)
    return found


def flex_operations(content: bytes) -> Iterator[tuple[str, list[str]]]:
    """Yields each TensorFlow operation in a file, with the names of its outputs."""
    file = litert_schema().Model.GetRootAs(content)
    for graph in _graphs(content):
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            code = file.OperatorCodes(operator.OpcodeIndex()).CustomCode() or b""
            if code.startswith(b"Flex"):
                outputs = map(operator.Outputs, range(operator.OutputsLength()))
                names = [graph.Tensors(output).Name().decode() for output in outputs]
                yield code.decode().removeprefix("Flex"), names


def _graphs(content: bytes) -> list[Any]:
    file = litert_schema().Model.GetRootAs(content)
    return [file.Subgraphs(i) for i in range(file.SubgraphsLength())]
