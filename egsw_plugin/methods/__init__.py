"""The methods: each ties its options, the tensors it needs, its kernel and its diagnostics together, without verl.

`METHODS` maps the name under which verl knows a method, which is also its section of options, to the method.
"""

from .base import Batch, Method, Outcome, Success
from .egsw import EGSW
from .shaped import GRPO_S, GTPO

METHODS: dict[str, Method] = {method.name: method for method in (EGSW(), GTPO, GRPO_S)}

__all__ = ["EGSW", "GRPO_S", "GTPO", "METHODS", "Batch", "Method", "Outcome", "Success"]
