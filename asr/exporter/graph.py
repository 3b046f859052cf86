"""A graph of ONNX operators while it is written: nodes, constants, and weights in few bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor

from asr.quantization import SCALE, Storage, quantized

OPSET = 17  # the first with LayerNormalization


class Graph:
    """Nodes in the order in which they run; each gives a name to what it computes.

    Args:
        precision: of the matrices of weights, as they are stored.
        parent: whose constants and values it sees, as the body of a Scan.
    """

    def __init__(self, precision: Storage, parent: Graph | None = None) -> None:
        self.precision: Storage = precision
        self._root: Graph = self if parent is None else parent._root
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, and return its name."""
        return self.ops(kind, *inputs, count=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Add a node of several outputs, and return their names."""
        outputs = [self.name(kind.lower()) for _ in range(count)]
        self._nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs

    def rename(self, value: str, name: str) -> None:
        """Give a value another name, by a node that does nothing more."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))

    def name(self, stem: str) -> str:
        """Make a name that no other value has."""
        self._root._count += 1
        return f"{stem}_{self._root._count}"

    def constant(self, value: NDArray[Any] | Sequence[int] | int) -> str:
        """Name a constant: as it is an array, int64 of whole numbers."""
        array = value if isinstance(value, np.ndarray) else np.array(value, np.int64)
        root = self._root
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in root._known:
            root._known[key] = self.name("constant")
            tensor = numpy_helper.from_array(np.asarray(array, order="C"), root._known[key])
            root._constants.append(tensor)
        return root._known[key]

    def number(self, value: float, dtype: type = np.float32) -> str:
        """Name a constant number."""
        return self.constant(np.array(value, dtype))

    def weight(self, weight: Tensor) -> str:
        """Name a weight, float32 where it is used; matrices are stored in the precision asked for.

        What makes float32 of them is a constant expression, which a runtime computes once.
        """
        stored = quantized({"": weight.detach().cpu()}, self.precision)
        name = self.constant(stored[""].numpy())
        if stored[""].dtype == weight.dtype:
            return name
        wide = self.op("Cast", name, to=TensorProto.FLOAT)
        if SCALE not in stored:
            return wide
        return self.op("Mul", wide, self.constant(stored[SCALE].numpy()[:, None]))

    def size(self, x: str, axis: int) -> str:
        """Tell the size of an axis, as int64 of shape `(1,)`."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    def range(self, count: str) -> str:
        """Count from 0 up to a size of `size`, int64."""
        scalar = self.op("Squeeze", count, self.constant([0]))
        return self.op("Range", self.constant(0), scalar, self.constant(1))

    def slice(self, x: str, begin: str, end: str, axis: int) -> str:
        """Take a part of an axis, its ends being int64 of shape `(1,)`."""
        return self.op("Slice", x, begin, end, self.constant([axis]))

    def inside(self, lengths: str, count: str) -> str:
        """Tell what lies within lengths `(B,)`: bool `(B, T)`, T being a size of `size`."""
        column = self.op("Unsqueeze", lengths, self.constant([1]))
        return self.op("Less", self.range(count), column)

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Add axes of size 1."""
        return self.op("Unsqueeze", x, self.constant(axes))

    def scan(
        self, body: Graph, states: Sequence[str], scanned: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Run a body along an axis.

        Args:
            body: finished by `finish`; its inputs are the states and a slice of what is scanned,
                its outputs the states and what is gathered.
            states: at the beginning.
            scanned: arrays.
            attributes: of the operator Scan.

        Returns:
            The last states, and what was gathered.
        """
        graph = body.proto
        return self.ops(
            "Scan", *states, *scanned, count=len(graph.output), body=graph,
            num_scan_inputs=len(scanned), **attributes,
        )  # fmt: skip

    def finish(
        self, name: str, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
    ) -> GraphProto:
        """Make the graph of its nodes; the constants lie in the outermost one.

        Args:
            name: for people.
            inputs: with their types.
            outputs: with their types; their names are those of values.
        """
        self.proto: GraphProto = helper.make_graph(
            self._nodes, name, inputs, outputs, self._constants
        )
        return self.proto
