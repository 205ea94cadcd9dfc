"""Weights from the trainer's workers to a rollout apart from them, over gloo: verl's checkpoint engine for the CPU.

verl's own engines need an accelerator. With this one `trainer.v1.trainer_mode=separate_async` runs on a laptop:

    actor_rollout_ref.rollout.checkpoint_engine.backend=gloo
    actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module=egsw_plugin.cpu.checkpoint_engine

The first actor's worker broadcasts to all workers of the rollout, in buckets. The group is made anew for each update,
so that a worker that was replaced takes part again.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import timedelta
from typing import Any

import ray
import torch
from torch.distributed import BroadcastOptions, PrefixStore, ProcessGroupGloo, TCPStore
from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry

TIME_LIMIT = timedelta(seconds=300)  # for one broadcast; a worker that died would else be waited for for ever

Named = tuple[str, torch.Tensor]


@CheckpointEngineRegistry.register("gloo")
class GlooCheckpointEngine(CheckpointEngine):
    """Broadcasts named tensors of any dtype from rank 0; ranks above are the rollout's, and -1 is no part of it.

    Of several actors only the first sends: the others walk through the weights, whose gathering takes all of them.
    """

    def __init__(self, bucket_size: int, is_master: bool = False):
        self.bucket_size, self.is_master = bucket_size, is_master
        self.store: TCPStore | None = None  # the master's, for as long as it lives
        self.group: ProcessGroupGloo | None = None
        self.rank, self.updates = -1, 0

    def prepare(self) -> tuple[str, int, int] | None:
        """Of the master: address and port of its store, and which update this is."""
        if not self.is_master:
            return None
        address = ray.util.get_node_ip_address().strip("[]")
        if self.store is None:
            self.store = TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=TIME_LIMIT)
        self.updates += 1
        return address, self.store.port, self.updates

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[Any]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """The master is 0, the rollout's workers are 1 and up, and other actors stay outside.

        >>> actors, rollout = GlooCheckpointEngine.build_topology(2, 2, [("10.0.0.1", 29500, 1), None, None, None])
        >>> actors["rank"], rollout["rank"], rollout["world_size"]
        ([0, -1], [1, 2], [3, 3])
        """
        size = 1 + rollout_world_size
        ranks = ([0] + [-1] * (actor_wg_world_size - 1), list(range(1, size)))
        actors, rollout = (
            {"rank": each, "world_size": [size] * len(each), "master": [metadata[0]] * len(each)} for each in ranks
        )
        return actors, rollout

    def init_process_group(self, rank: int, world_size: int, master: tuple[str, int, int]) -> None:
        """Join the group of this update."""
        self.rank = rank
        if rank < 0:
            return
        address, port, update = master
        store = self.store
        if store is None:
            store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=TIME_LIMIT)
        self.group = ProcessGroupGloo(PrefixStore(f"weights/{update}", store), rank, world_size, TIME_LIMIT)

    def finalize(self) -> None:
        """Leave the group."""
        self.group = None

    @torch.no_grad()
    async def send_weights(self, weights: Iterable[Named], global_steps: int | None = None) -> None:
        """Send all, bucket after bucket; an empty one is the end."""
        if self.rank < 0:
            for _ in weights:
                pass
            return
        for bucket in _buckets(weights, self.bucket_size):
            await asyncio.to_thread(self._send, bucket)
        await asyncio.to_thread(self._send, [])

    @torch.no_grad()
    async def receive_weights(self, global_steps: int | None = None) -> AsyncIterator[Named]:
        """Yield what the master sends."""
        while bucket := await asyncio.to_thread(self._receive):
            for named in bucket:
                yield named

    def _send(self, bucket: list[Named]) -> None:
        described = pickle.dumps([(name, tensor.shape, tensor.dtype) for name, tensor in bucket])
        self._broadcast(torch.tensor([len(described)]))
        self._broadcast(torch.frombuffer(bytearray(described), dtype=torch.uint8))
        if bucket:
            self._broadcast(torch.cat([tensor.reshape(-1).view(torch.uint8) for _, tensor in bucket]))

    def _receive(self) -> list[Named]:
        length = self._broadcast(torch.empty(1, dtype=torch.int64))
        described = self._broadcast(torch.empty(int(length), dtype=torch.uint8))
        parts = pickle.loads(described.numpy().tobytes())
        sizes = [shape.numel() * dtype.itemsize for _, shape, dtype in parts]
        if not parts:
            return []
        pieces = self._broadcast(torch.empty(sum(sizes), dtype=torch.uint8)).split(sizes)
        # A copy each: a piece begins at any byte, and an element must begin at a multiple of its size.
        return [
            (name, piece.clone().view(dtype).view(shape))
            for (name, shape, dtype), piece in zip(parts, pieces, strict=True)
        ]

    def _broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        options = BroadcastOptions()
        options.rootRank, options.rootTensor = 0, 0
        if self.group is None:
            raise RuntimeError("init_process_group was not called for this update of the weights")
        self.group.broadcast([tensor], options).wait()
        return tensor


def _buckets(weights: Iterable[Named], limit: int) -> Iterator[list[Named]]:
    """Tensors in order, contiguous and on the CPU, so many that they fit; one larger than that goes alone.

    >>> sizes = [[tensor.numel() for _, tensor in each]
    ...          for each in _buckets([(str(n), torch.zeros(n)) for n in (1, 1, 5, 2)], limit=8)]
    >>> sizes
    [[1, 1], [5], [2]]
    """
    bucket: list[Named] = []
    size = 0
    for name, tensor in weights:
        tensor = tensor.detach().to("cpu").contiguous()
        if bucket and size + tensor.nbytes > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append((name, tensor))
        size += tensor.nbytes
    if bucket:
        yield bucket
