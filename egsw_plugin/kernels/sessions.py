"""Sessions with several outputs: the rows of one agent-loop session, in order, as one response."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from ..errors import VaryingAdvantagesError
from .groups import dense_group_ids
from .rows import Rows


@dataclass(frozen=True)
class Sessions:
    """How rows join into sessions; a row brings its tokens up to its last policy token.

    session: int64 [rows], the session of each row. last: int64 [sessions], the row of each session's last output, which
    carries its reward. start: int64 [rows], where in the joined response the row's first token goes.
    """

    rows: Rows
    session: torch.Tensor
    last: torch.Tensor
    start: torch.Tensor

    @classmethod
    def of(cls, names: Sequence[Hashable], outputs: Sequence[int], rows: Rows) -> Sessions:
        """Join rows that have the same name, in the order of `outputs` (any increasing numbers).

        >>> mask = torch.tensor([[1, 0], [1, 1], [1, 1]])
        >>> sessions = Sessions.of(["a", "b", "a"], [1, 0, 0], Rows.measure(mask))
        >>> sessions.join(torch.tensor([[3.0, 9.0], [4.0, 5.0], [1.0, 2.0]]))
        tensor([[1., 2., 3.],
                [4., 5., 0.]])
        """
        session = dense_group_ids(names)
        number = int(session.max()) + 1 if len(session) else 0
        start, last = torch.zeros_like(session), torch.zeros(number, dtype=torch.int64)
        filled, widths, ids = [0] * number, rows.width.tolist(), session.tolist()
        for row in sorted(range(len(ids)), key=lambda row: outputs[row]):
            start[row] = filled[ids[row]]
            filled[ids[row]] += widths[row]
            last[ids[row]] = row
        device = rows.count.device
        return cls(rows, session.to(device), last.to(device), start.to(device))

    def join(self, tensor: torch.Tensor) -> torch.Tensor:
        """[rows, tokens] as [sessions, joined tokens], zero on the right."""
        row, column = self._places()
        width = int((self.start + self.rows.width).max()) if len(self.start) else 0
        joined = tensor.new_zeros(len(self.last), width)
        joined[self.session[row], self.start[row] + column] = tensor[row, column]
        return joined

    def split(self, joined: torch.Tensor) -> torch.Tensor:
        """[sessions, joined tokens] back as [rows, tokens], zero after each row's last policy token."""
        row, column = self._places()
        tensor = joined.new_zeros(self.rows.mask.shape)
        tensor[row, column] = joined[self.session[row], self.start[row] + column]
        return tensor

    def spread(self, of_last: torch.Tensor) -> torch.Tensor:
        """The one number of each session's last output [sessions, tokens] on all policy tokens of the session, [rows,
        tokens]; 0 where the last output has no policy token.

        Raises:
            VaryingAdvantagesError: the numbers of an output differ.
        """
        own = self.rows.mask[self.last].ne(0)
        level = of_last.masked_fill(~own, -math.inf).amax(1)
        least = of_last.masked_fill(~own, math.inf).amin(1)
        some = own.any(1)
        if not bool((least == level)[some].all()):
            raise VaryingAdvantagesError(
                "advantages that vary within a response cannot be spread over a session with several outputs"
            )
        return level.masked_fill(~some, 0)[self.session].unsqueeze(1) * self.rows.mask.ne(0)

    def _places(self) -> tuple[torch.Tensor, torch.Tensor]:
        position = torch.arange(self.rows.mask.shape[1], device=self.start.device)
        row, column = (position < self.rows.width.unsqueeze(1)).nonzero(as_tuple=True)
        return row, column
