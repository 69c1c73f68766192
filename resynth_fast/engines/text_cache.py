"""The cache of text states, shared by all candidates with the same text component."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from ..backends import Arrays
from ..types import Floats

Outputs = dict[str, Floats]
LIMIT_BYTES = 64 << 20


class TextCache:
    """Outputs by graph and input row, for components whose rows are independent; the least recently used go first."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._rows: OrderedDict[tuple[str, bytes], Outputs] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __call__(self, sha256: str, inputs: Arrays, run: Callable[[Arrays], Outputs]) -> Outputs:
        """Outputs of the graph `sha256` for `inputs`, arrays (n, ...). `run` is called at most once, with the distinct rows not cached."""
        count = len(next(iter(inputs.values())))
        keys = [(sha256, b"".join(array[i].tobytes() for array in inputs.values())) for i in range(count)]
        with self._lock:
            outputs = {key: self._rows[key] for key in dict.fromkeys(keys) if key in self._rows}
            for key in outputs:
                self._rows.move_to_end(key)
        missing = {key: i for i, key in enumerate(keys) if key not in outputs}
        if missing:
            rows = list(missing.values())
            computed = run({name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()})
            new = {key: {name: values[j].copy() for name, values in computed.items()} for j, key in enumerate(missing)}
            self._add(new)
            outputs |= new
        return {name: np.stack([outputs[key][name] for key in keys]) for name in outputs[keys[0]]}

    def _add(self, new: dict[tuple[str, bytes], Outputs]) -> None:
        with self._lock:
            for key, outputs in new.items():
                if key not in self._rows:
                    self._rows[key] = outputs
                    self._bytes += _size(outputs)
            while self._bytes > self.limit_bytes:
                self._bytes -= _size(self._rows.popitem(last=False)[1])


def _size(outputs: Outputs) -> int:
    return sum(array.nbytes for array in outputs.values())
