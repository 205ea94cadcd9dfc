"""Weights over gloo between an actor and a rollout: all ranks in one process, as threads.

Maps to cpu/checkpoint_engine.py. Not exercised: processes and machines apart (verl_runs/test_verl_runs.py).
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from egsw_plugin.cpu.checkpoint_engine import GlooCheckpointEngine


def weights(seed):
    """Several dtypes, sizes that are no multiple of an element's, a scalar, a transposed view, and an empty one."""
    generator = torch.Generator().manual_seed(seed)
    return [
        ("norm", torch.randn(3, generator=generator).bfloat16()),
        ("step", torch.tensor(seed)),
        ("mask", torch.randint(0, 2, (5,), generator=generator).bool()),
        ("proj", torch.randn(7, 3, generator=generator).T),
        ("none", torch.empty(0, 4)),
        ("embed", torch.randn(50, 11, generator=generator)),
    ]


async def transfer(engines, actors, sent):
    """What verl's CheckpointEngineManager has all workers do for one update."""
    metadata = [engine.prepare() for engine in engines]
    kwargs = GlooCheckpointEngine.build_topology(actors, len(engines) - actors, metadata)
    each = [
        {key: values[number] for key, values in side.items()}
        for side, count in zip(kwargs, (actors, len(engines) - actors), strict=True)
        for number in range(count)
    ]
    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(lambda pair: pair[0].init_process_group(**pair[1]), zip(engines, each, strict=True)))

    async def receive(engine):
        return [named async for named in engine.receive_weights()]

    consumed = [iter(sent) for _ in range(actors)]
    sending = [engine.send_weights(generator) for engine, generator in zip(engines[:actors], consumed, strict=True)]
    results = await asyncio.gather(*sending, *(receive(engine) for engine in engines[actors:]))
    assert all(next(rest, None) is None for rest in consumed)  # gathering a weight takes every actor
    for engine in engines:
        engine.finalize()
    return results[actors:]


@pytest.mark.parametrize("bucket_size", [1, 64, 1 << 20])
def test_every_rollout_worker_gets_what_the_first_actor_sends(bucket_size):
    engines = [GlooCheckpointEngine(bucket_size, is_master=number == 0) for number in range(4)]
    for update in range(2):
        sent = weights(update)
        for received in asyncio.run(transfer(engines, 2, sent)):
            assert [name for name, _ in received] == [name for name, _ in sent]
            for (_, one), (_, other) in zip(received, sent, strict=True):
                assert one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def test_a_rollout_worker_that_was_replaced_takes_part_again():
    engines = [GlooCheckpointEngine(64, is_master=number == 0) for number in range(2)]
    asyncio.run(transfer(engines, 1, weights(0)))
    ((*_, (name, last)),) = asyncio.run(transfer([engines[0], GlooCheckpointEngine(64)], 1, weights(1)))
    assert name == "embed" and torch.equal(last, weights(1)[-1][1])
