"""A run's payload on its way to the executors: broadcasts of 64 MB each, for models of any size.

Spark holds a broadcast whole in the driver's heap while it cuts it into blocks, so a large model in one broadcast ends
the driver. The pickle goes through a file: the driver's Python needs no memory for a second copy of the model either.
"""

from __future__ import annotations

import tempfile

from pyspark import SparkContext

from sparkdl import payload as payload_module
from sparkdl.payload import Payload

PART_BYTES = 1 << 26


class ShippedPayload:
    """Like a broadcast of ``payload.pickle(payload)``: tasks read ``value``, the driver calls ``destroy`` at the end.

    Raises ConfigError: the payload cannot be pickled.
    """

    def __init__(self, sc: SparkContext, payload: Payload):
        self.size = 0
        self._parts = []
        with tempfile.TemporaryFile(prefix="sparkdl-") as file:
            payload_module.write(payload, file)
            file.seek(0)
            while part := file.read(PART_BYTES):
                self._parts.append(sc.broadcast(part))
                self.size += len(part)

    @property
    def value(self) -> bytes | bytearray:
        """The pickle. Not kept: a worker needs it once, to write it down."""
        if len(self._parts) == 1:
            return self._parts[0].value
        whole, position = bytearray(self.size), 0
        for part in self._parts:
            found = part.value
            whole[position : position + len(found)] = found
            position += len(found)
            vars(part).pop("_value", None)
        return whole

    def destroy(self) -> None:
        """Removes all of it from the cluster."""
        for part in self._parts:
            part.destroy()
