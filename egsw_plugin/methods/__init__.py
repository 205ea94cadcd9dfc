"""The methods: each ties its options, the tensors it needs, its kernel and its diagnostics together, without verl.

`METHODS` maps the name under which verl knows a method, which is also its section of options, to the method.
"""

from .base import Batch, Method, Outcome
from .egsw import EGSW

METHODS: dict[str, Method] = {method.name: method for method in (EGSW(),)}

__all__ = ["EGSW", "METHODS", "Batch", "Method", "Outcome"]
