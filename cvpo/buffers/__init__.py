"""Buffers: replayed transitions, and the states that the E-step is given."""

from cvpo.buffers.protocol import Buffer, Store, registry
from cvpo.buffers.states import states

__all__ = ["Buffer", "Store", "registry", "states"]
