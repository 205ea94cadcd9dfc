"""Random batches, options and faults for estimators, chains of the family, policy losses and the parsing of options.

One seed is one case of each. What is asked of each: a finite result of the right shape and dtype, zero outside the
mask, with the inputs as they were, and equal to the loops of `reference.py` and `reference_shaping.py` where the case
is one that they can be compared on; or one of the plugin's own errors, naming what is wrong. A case that was spoilt in
a way that must be refused has to be refused, and one that was not spoilt has to be computed.

As a command: python tests/fuzz.py --cases 100000 --seed 7
"""

import argparse
import dataclasses
import math
import random
import sys
import traceback
import warnings

import numpy as np
import reference
import reference_shaping
import torch
import verl  # noqa: F401  (loads the plugin through its entry point, as a user's run does)
from omegaconf import OmegaConf
from verl.trainer.config.algorithm import AlgoConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.workers.config import ActorConfig

from egsw_plugin import fields
from egsw_plugin.controllers import Controller
from egsw_plugin.errors import EGSWPluginError
from egsw_plugin.kernels import compiled, loops
from egsw_plugin.methods import LOSSES as MEMBER_LOSSES
from egsw_plugin.methods import MEMBERS
from egsw_plugin.methods.interface import Transform
from egsw_plugin.options import encode, parse, walk
from egsw_plugin.testing import settings_of

OPTIONS = {name: MEMBERS[name].options_type for name in ("egsw", "gtpo", "grpo_s")}
CHOICES = {
    "granularity": ["step", "trajectory"],
    "scope": ["group", "batch"],
    "denominator": ["alive", "all"],
    "normalize": ["mean_one", "sum_one"],
    "channel": ["advantage", "loss"],
    "weigh_kl": [False, True],
    "norm_set": ["all_with_zeros", "own_set", "joint", "none"],
    "norm_scope": ["group", "batch"],
    "entropy_scope": ["group", "batch"],
    "failure": ["shaped", "zero", "unbased"],
    "mean": ["arithmetic", "geometric"],
    "std": ["population", "sample"],
    "unmixed": ["drop", "keep"],
}
# Ordinary values, on which the loops and float32 agree, and values at the ends of what an option accepts.
NUMBERS = {
    "alpha": ([0.0, 0.5, 1.0, -0.7, 3.0], [1e-300, 1e20, -1e300, 1.7e308, 5e-324, 40.0, -1000.0]),
    "temperature": ([1.0, 0.3, 2.5, 10.0], [5e-324, 1e-308, 1e-30, 1e-4, 1e30, 1.7e308, "auto"]),
    "first": ([1.0, 0.9, 0.0, -0.3], [1e15, -1e15, 1e-15, 1e-14]),
    "second": ([0.1, 0.2, 0.0, 2.5], [1e15, -1e15, 1e-15, 1e-9]),
    "eps": ([1e-6, 1e-3, 1.0], [0.0, 5e-324, 1e-300, 1e300, 1.7e308]),
    "entropy_floor": ([1e-6, 0.3, 1e-3], [1e-30, 1e3]),
    "threshold": ([0.5, 0.0, -1.0], [1.7e308, -1.7e308, 1e15]),
    "entropy_clip": ([None, [0.2, 0.9]], [[0, 5e-324], [0, 1e3], [1e-30, 2e-30], [999, 1e3]]),
}
# Estimators of verl that need nothing but rewards, and whose groups may be of any size.
BASES = ["grpo", "grpo_vectorized", "rloo", "rloo_vectorized", "reinforce_plus_plus_baseline", "opo", "gpg"]
WRONG_VALUES = ["", "abc", "1", None, True, [], [1], {}, {"a": 1}, math.nan, math.inf, -math.inf, 10**400, -(10**400)]
WRONG_VALUES += [1j, b"x", (1, 2, 3), {1, 2}, object, np.arange(3), np.float32(0.5), torch.ones(2), range(2), -1, 0]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
MASK_DTYPES = [torch.int64, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, *DTYPES]
AGGREGATIONS = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]
LOSSES = list(MEMBER_LOSSES.own)
COMPARED = ("egsw", "gtpo", "grpo_s", "grpo_s_geometric")  # losses that have their loop here


class Failure(AssertionError):
    """A case on which the plugin did not do what it promises."""


@dataclasses.dataclass
class Case:
    """One call of an estimator.

    exact: nothing is out of the ordinary; compared: the loops here can make it then. refused: it must end in an error
    that holds one of these words; tolerated: it may end in an error. config: a kind of configuration, or one to pass as
    it is. success: what decides it in place of the rewards. block: the compiled loops' BLOCK, None: torch. faults:
    what was done to a good batch.
    """

    rng: random.Random
    method: str
    options: dict
    rewards: torch.Tensor
    mask: torch.Tensor
    index: object
    entropy: torch.Tensor
    more: dict = dataclasses.field(default_factory=dict)
    algorithm: dict = dataclasses.field(default_factory=dict)
    config: object = "dict"
    success: list | None = None
    exact: bool = True
    compared: bool = True
    refused: tuple = ()
    tolerated: bool = False
    block: int | None = loops.BLOCK
    faults: list = dataclasses.field(default_factory=list)

    def __str__(self):
        tensors = {"rewards": self.rewards, "mask": self.mask, "entropy": self.entropy, **self.more}
        lines = [f"{self.method} {self.options} algorithm={self.algorithm} faults={self.faults} block={self.block}"]
        lines.append(f"config={self.config!r:.200} refused={self.refused} tolerated={self.tolerated}")
        lines.append(f"index={shown(self.index)}")
        lines += [f"{name}={shown(value)}" for name, value in tensors.items()]
        return "\n".join(lines)


def shown(value):
    """A value, with a tensor's shape and dtype; cut where it is long."""
    if isinstance(value, torch.Tensor):
        try:
            inside = value.tolist() if value.layout == torch.strided and not value.is_meta else "..."
        except (RuntimeError, NotImplementedError):
            inside = "..."
        return f"{tuple(value.shape) if not value.is_nested else 'nested'} {value.dtype} {value.device} {inside}"[:1500]
    return repr(value)[:1500]


# --------------------------------------------------------------------------------------------- good batches and options


def batch(rng):
    """Rewards, a 0/1 mask, uids and entropies of random groups: lengths, holes, padding rows, sizes of every kind."""
    kind = rng.choice(["usual"] * 12 + ["empty", "no tokens", "all masked", "one row", "uneven", "huge"])
    tokens = rng.choice([1, 2, 3, 5, 8, 13])
    sizes = [rng.randint(1, 6) for _ in range(rng.randint(1, 5))]
    if kind == "empty":
        sizes = []
    elif kind == "no tokens":
        tokens = 0
    elif kind == "one row":
        sizes = [1]
    elif kind == "uneven":
        sizes, tokens = [1, 2, 17, rng.randint(20, 60)], rng.choice([1, 2, 3])
    elif kind == "huge" and rng.random() < 0.15:
        sizes, tokens = [1, 3, rng.randint(300, 1500)], rng.choice([1, 2])
    uids = [f"prompt-{number}" for number, size in enumerate(sizes) for _ in range(size)]
    rng.shuffle(uids)
    mask = torch.zeros(len(uids), tokens, dtype=torch.int64)
    for row in range(len(uids)):
        length = 0 if kind == "all masked" or rng.random() < 0.1 else rng.randint(0, tokens)
        mask[row, :length] = 1
        for column in range(length):
            if rng.random() < 0.1:
                mask[row, column] = 0
    scale = rng.choice([1.0, 1.0, 1.0, 0.01, 8.0])
    entropy = torch.tensor([[rng.expovariate(1.0) * scale for _ in range(tokens)] for _ in uids]).view(mask.shape)
    if rng.random() < 0.1:
        entropy = torch.full(mask.shape, rng.choice([0.0, 0.5, 1e-7]))
    elif rng.random() < 0.1:
        entropy = entropy * torch.tensor([[rng.choice([0.0, 1.0]) for _ in range(tokens)] for _ in uids]).view(
            mask.shape
        )
    rewards = torch.zeros(mask.shape)
    values = rng.choice([[0.0, 1.0], [0.0, 1.0], [-1.0, 0.25, 1.5], [1.0], [0.0]])
    for row in range(len(uids)):
        if tokens:
            rewards[row, rng.randrange(tokens)] = rng.choice(values)
    return rewards, mask, np.array(uids, dtype=object), entropy


def options_for(rng, method, extreme):
    """Some options of a method, set to ordinary values or (`extreme`) to some at the ends of their ranges."""
    chosen = {}
    for key, _, _ in walk(OPTIONS[method]):
        if rng.random() < 0.5:
            continue
        name = {"1": "first", "2": "second"}.get(key[-1], key) if key != "overlong.gamma1" else key
        if key in CHOICES:
            chosen[key] = rng.choice(CHOICES[key])
        elif name in NUMBERS:
            chosen[key] = rng.choice(NUMBERS[name][int(extreme and rng.random() < 0.5)])
        elif key == "base":
            chosen[key] = rng.choice(BASES)
        elif key == "entropy":
            chosen[key] = rng.choice(["full", "surprisal"])
    if method != "egsw" and rng.random() < 0.3:
        chosen["overlong"] = {"enable": rng.random() < 0.8, "gamma1": rng.choice([0.75, 0.51, 0.999, 0.6])}
    return chosen


def expected(case):
    """Advantages of the good batch of `case` by the loops, float64 [rows, tokens]."""
    alive = case.mask.ne(0)
    mask, uids = alive.tolist(), [groups_of(case)[uid] for uid in as_list(case.index)]
    result = torch.zeros(alive.shape, dtype=torch.float64)
    options = {key: value for key, value in case.options.items() if key not in ("channel", "weigh_kl")}
    if case.method == "egsw":
        base = base_advantages(case, options.pop("base", "grpo"))
        if case.options.get("channel") == "loss":
            return base
        entropy = -case.more["old_log_probs"] if options.pop("entropy", "full") == "surprisal" else case.entropy
        weights = reference.egsw_weights(
            base.tolist(),
            entropy.tolist(),
            mask,
            uids,
            **{"alpha": 0.5, "temperature": 3.0, **options},
        )
        for place, weight in weights.items():
            result[place] = weight * base[place]
        return result
    penalty = options.pop("overlong", {})
    threshold, _ = options.pop("threshold", 0.5), options.pop("success", None)
    success = (case.rewards.double().sum(1) > threshold).tolist() if case.success is None else case.success
    advantages = getattr(reference_shaping, case.method)(
        case.entropy.tolist(),
        mask,
        uids,
        success,
        overlong=penalty.get("enable", False),
        gamma1=penalty.get("gamma1", 0.75),
        **options,
    )
    if case.method == "grpo_s":
        return torch.tensor(advantages, dtype=torch.float64).view(-1, 1) * alive
    for place, advantage in advantages.items():
        result[place] = advantage
    return result


def as_list(index):
    return index.tolist() if isinstance(index, torch.Tensor | np.ndarray) else list(index)


def groups_of(case):
    """A number for each uid."""
    return {uid: number for number, uid in enumerate(dict.fromkeys(as_list(case.index)))}


def base_advantages(case, name):
    """What the base alone gives for a good batch, float64: GRPO by a loop, any other by verl's own function."""
    rewards, alive = case.rewards.detach().double(), case.mask.ne(0)
    uids = [groups_of(case)[uid] for uid in as_list(case.index)]
    if name != "grpo":
        if not alive.any():
            return torch.zeros(rewards.shape, dtype=torch.float64)
        config = OmegaConf.create({"gamma": 1.0, "lam": 1.0, **case.algorithm})
        result, _ = get_adv_estimator_fn(name)(
            token_level_rewards=rewards.float(), response_mask=alive.long(), index=np.array(uids), config=config
        )
        return result.double().masked_fill(~alive, 0)
    divide = case.algorithm.get("norm_adv_by_std_in_grpo", True)
    result = torch.zeros(rewards.shape, dtype=torch.float64)
    outcome = rewards.sum(1).tolist()
    groups = {}
    for row, uid in enumerate(uids):
        groups.setdefault(uid, []).append(row)
    for rows in groups.values():
        mean, deviation = 0.0, 1.0
        if len(rows) > 1:
            mean = math.fsum(outcome[row] for row in rows) / len(rows)
            deviation = math.sqrt(math.fsum((outcome[row] - mean) ** 2 for row in rows) / (len(rows) - 1))
        for row in rows:
            result[row] = (outcome[row] - mean) / (deviation + 1e-6 if divide else 1.0)
    return result * alive


# --------------------------------------------------------------------------------------------------------------- faults
# Each takes a case with a good batch and changes it. What must then come of it, it writes into the case.


def refuse(case, *words):
    case.refused, case.exact = (*case.refused, *words), False


def policy_token(case):
    """The place of a random policy token, or None."""
    places = case.mask.ne(0).nonzero().tolist()
    return tuple(case.rng.choice(places)) if places else None


def dead_tokens(case):
    return ~case.mask.ne(0)


def main_tensor(case):
    """Name of the tensor that stands for the entropy."""
    surprisal = case.method == "egsw" and case.options.get("entropy") == "surprisal"
    return "old_log_probs" if surprisal else "entropy"


def get_main(case):
    return case.more["old_log_probs"] if main_tensor(case) == "old_log_probs" else case.entropy


def set_main(case, tensor):
    if main_tensor(case) == "old_log_probs":
        case.more["old_log_probs"] = tensor
    else:
        case.entropy = tensor


def bad_entropy(case):
    """NaN, an infinity or a number of the wrong sign at a policy token."""
    place, tensor = policy_token(case), get_main(case).clone()
    if place is not None:
        sign = -1 if main_tensor(case) == "entropy" else 1
        tensor[place] = case.rng.choice([math.nan, math.inf, -math.inf, sign * 3.0])
        set_main(case, tensor)
        refuse(case, main_tensor(case))


def entropy_outside(case):
    """Anything at all where the mask is 0."""
    tensor = get_main(case).float()
    tensor = tensor.clone()
    tensor[dead_tokens(case)] = case.rng.choice([math.nan, math.inf, -math.inf, 1e38, -5.0])
    set_main(case, tensor)


def bad_reward(case):
    place = policy_token(case)
    if place is not None:
        case.rewards = case.rewards.float().clone()
        case.rewards[place] = case.rng.choice([math.nan, math.inf, -math.inf, 3e38, -1e30])
        refuse(case, "score")


def bad_reward_in_padding(case):
    """A reward that is not a number in a row without policy tokens: not the concern of methods without a base."""
    rows = (case.mask.ne(0).sum(1) == 0).nonzero().flatten().tolist()
    if rows and case.mask.shape[1]:
        case.rewards = case.rewards.clone()
        case.rewards[case.rng.choice(rows), 0] = case.rng.choice([math.nan, math.inf])
        if case.method == "egsw":
            refuse(case, "score")
        else:
            case.exact = case.exact and "threshold" not in case.options


def shape(case):
    """A tensor of another shape."""
    name = case.rng.choice(["rewards", "mask", "main"])
    old = {"rewards": case.rewards, "mask": case.mask, "main": get_main(case)}[name]
    rows, tokens = old.shape
    new = case.rng.choice(
        [(rows + 1, tokens), (rows, tokens + 1), (tokens + 1, rows + 3), (rows,), (rows, tokens, 1), ()]
    )
    tensor = torch.zeros(new, dtype=old.dtype)
    if name == "rewards":
        case.rewards = tensor
    elif name == "mask":
        case.mask = tensor
    else:
        set_main(case, tensor)
    refuse(case, "shape")


def dtype(case):
    """Another dtype of a tensor: one that is fine, or one that is not."""
    name, rng = case.rng.choice(["rewards", "mask", "main"]), case.rng
    if name == "mask":
        new = rng.choice([*MASK_DTYPES, torch.complex64, torch.float8_e4m3fn])
        case.mask = case.mask.to(new)
        if new not in MASK_DTYPES:
            refuse(case, "response_mask has dtype")
        return
    new = rng.choice([*DTYPES, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint8])
    if name == "rewards":
        case.rewards = case.rewards.to(new)
    else:
        set_main(case, get_main(case).to(new))
    if new not in DTYPES:
        refuse(case, "dtype")


def meta(case):
    name = case.rng.choice(["rewards", "mask", "main"])
    if name == "rewards":
        case.rewards = case.rewards.to("meta")
    elif name == "mask":
        case.mask = case.mask.to("meta")
    else:
        set_main(case, get_main(case).to("meta"))
    refuse(case, "device")


def layout(case):
    name = case.rng.choice(["rewards", "main"])
    if case.mask.numel() == 0:
        return
    odd = case.rng.choice(
        [torch.Tensor.to_sparse, lambda t: torch.nested.as_nested_tensor(list(t), layout=torch.jagged)]
    )
    if name == "rewards":
        case.rewards = odd(case.rewards)
    else:
        set_main(case, odd(get_main(case)))
    refuse(case, "nested or sparse")


def not_a_tensor(case):
    name = case.rng.choice(["rewards", "mask", "main"])
    value = case.rng.choice([None, 1.0, "x", [[1.0]], np.zeros((2, 2))])
    if name == "rewards":
        case.rewards = value
    elif name == "mask":
        case.mask = value
    else:
        set_main(case, value)
    refuse(case, "must be a tensor", "needs")


def strides(case):
    """The same numbers in memory of another order, or with a gradient."""
    how = case.rng.choice(["transposed", "spaced", "gradient", "leaf"])

    def laid(tensor):
        if how == "transposed":
            return tensor.t().contiguous().t()
        if how == "spaced":
            return torch.stack([tensor, tensor], -1)[..., 0]
        if tensor.is_floating_point():
            tensor = tensor.detach().clone().requires_grad_()
            return tensor * 1 if how == "gradient" else tensor
        return tensor

    case.rewards, case.mask = laid(case.rewards), laid(case.mask)
    set_main(case, laid(get_main(case)))


def expanded(case):
    """Rows, or tokens, that are one number in memory."""
    rows, tokens = case.mask.shape
    if rows and tokens:
        sign = -1 if main_tensor(case) == "old_log_probs" else 1
        column = torch.tensor([[sign * case.rng.expovariate(1.0)] for _ in range(rows)])
        set_main(case, column.expand(rows, tokens))
        if case.rng.random() < 0.5:
            case.mask = torch.ones(1, tokens, dtype=torch.int64).expand(rows, tokens)


def other_numbers(case):
    """A mask of numbers other than 0 and 1: what is not 0 is a policy token."""
    case.mask = case.mask * case.rng.choice([2, 100, -1, -3])


def nan_mask(case):
    if case.mask.numel():
        case.mask = case.mask.double().contiguous()
        case.mask.view(-1)[case.rng.randrange(case.mask.numel())] = case.rng.choice([math.nan, math.inf])
        refuse(case, "response_mask")


def uids(case):
    """Uids of other kinds that name the same groups."""
    numbers = {uid: number for number, uid in enumerate(dict.fromkeys(case.index))}
    kind = case.rng.choice(["int", "float", "tensor", "mixed", "tuple", "list", "big", "near", "bytes"])
    make = {
        "int": lambda n: n - 1,
        "float": lambda n: n + 0.5,
        "tensor": lambda n: n,
        "mixed": lambda n: [n, str(n), (n,), n + 0.25][n % 4],
        "tuple": lambda n: (n, "x"),
        "list": lambda n: f"u{n}",
        "big": lambda n: 10**30 + n,
        "near": lambda n: 1 + n * 1e-9,
        "bytes": lambda n: bytes([n % 256, n // 256]),
    }[kind]
    new = [make(numbers[uid]) for uid in case.index]
    if kind == "tensor":
        case.index = torch.tensor(new, dtype=case.rng.choice([torch.int64, torch.float32, torch.int16]))
    elif kind in ("int", "float", "near") and case.rng.random() < 0.5:
        case.index = np.array(new)
    else:
        case.index = new


def bad_uids(case):
    rows = len(case.mask)
    if not rows:
        return
    kind = case.rng.choice(
        ["nan", "nan tensor", "unhashable", "tensors", "short", "long", "none", "some", "scalar", "text", "2d"]
    )
    index = list(case.index)
    odd = {"nan": math.nan, "unhashable": [1], "tensors": torch.tensor(1), "some": None}
    index[case.rng.randrange(rows)] = odd.get(kind, "x")
    case.index = {
        "nan tensor": torch.full((rows,), math.nan),
        "short": index[1:],
        "long": [*index, "y"],
        "none": None,
        "scalar": case.rng.choice([5, np.array(3), torch.tensor(3), object()]),
        "text": "x" * rows,
        "2d": np.zeros((rows, 2)),
    }.get(kind, index)
    if kind in ("nan", "unhashable", "tensors") and case.rng.random() < 0.5:
        array = np.empty(rows, dtype=object)
        for row, uid in enumerate(index):
            array[row] = uid
        case.index = array
    refuse(case, "index")


def missing(case):
    set_main(case, None)
    refuse(case, "needs")


def unknown_option(case):
    case.config = "dict"
    case.options = {**case.options, case.rng.choice(["alhpa", "x", "", "Base", "overlong.enable"]): 1}
    refuse(case, "there is no such option")


def wrong_value(case):
    """A value of the wrong type or range; some happen to be right."""
    key = case.rng.choice([key for key, _, _ in walk(OPTIONS[case.method]) if "." not in key])
    value = case.rng.choice(WRONG_VALUES)
    case.config = "dict"
    case.options = {**case.options, key: value}
    case.exact, case.tolerated = False, True


def wrong_config(case):
    case.config = case.rng.choice(["egsw", 5, [1], (), True, {case.method: "x"}, {case.method: [1]}, {case.method: 3}])
    case.config = case.config if case.config != () else torch.ones(2)
    refuse(case, "algorithm")


def broken_omegaconf(case):
    case.config = OmegaConf.create({case.method: case.rng.choice(["???", "${nope}", {"threshold": "${nope}"}])})
    refuse(case, "algorithm")


def other_config(case):
    """Another kind of configuration that says the same, or none at all."""
    case.config = case.rng.choice(["omegaconf", "dataclass", "none", "mixed"])
    if case.config == "none":
        if main_tensor(case) == "old_log_probs":
            case.entropy = -case.more.pop("old_log_probs")
        case.options, case.algorithm = {}, {}
        case.exact = True


def odd_base(case):
    if case.method == "egsw":
        base = case.rng.choice(["gae", "grpo_passk", "rloo", "reinforce_plus_plus", "x"])
        case.config = "dict"
        case.options = {**case.options, "base": base}
        case.algorithm = {**case.algorithm, **case.rng.choice([{}, {"gamma": 0.9}, {"lam": 0.5}, {"gamma": "a"}])}
        case.exact, case.tolerated = False, True
        case.more.pop("old_log_probs", None)
        shape = case.mask.shape
        for name in ("values", "old_log_probs"):
            if case.rng.random() < 0.8:
                tensor = torch.tensor([[-case.rng.random() for _ in range(shape[1])] for _ in range(shape[0])]).view(
                    shape
                )
                if case.rng.random() < 0.2 and tensor.numel():
                    tensor.view(-1)[case.rng.randrange(tensor.numel())] = case.rng.choice([math.nan, math.inf, 1e30])
                if case.rng.random() < 0.1:
                    tensor = case.rng.choice([tensor[:, :1], tensor.to("meta"), tensor.long(), tensor.t(), None, 1.0])
                case.more[name] = tensor


def field(case):
    """Success by a field of reward_extra_info, a good one or a bad one."""
    if case.method == "egsw":
        return
    case.config = "dict"
    rows = len(case.mask)
    case.options = {**case.options, "success": "acc"}
    threshold = case.options.get("threshold", 0.5)
    scores = case.rewards.double().sum(1).tolist()
    info = case.rng.choice(["good"] * 3 + ["short", "none", "no field", "scalar", "odd", "list", "keys", "array"])
    good = [float(score > threshold) * 2 - 1 for score in scores]
    case.success = [sign > 0 for sign in good]
    if info == "good":
        case.options["threshold"] = 0.0
        case.more["reward_extra_info"] = {"acc": case.rng.choice([good, np.array(good), torch.tensor(good)])}
        return
    odd = [math.nan, "x", None, 1j, 10**400, torch.ones(2), [1], math.inf]
    case.more["reward_extra_info"] = {
        "short": {"acc": [*good, 1.0]},
        "none": None,
        "no field": {"score": good},
        "scalar": {"acc": 1.0},
        "odd": {"acc": [case.rng.choice(odd) for _ in good]},
        "list": ["acc"],
        "keys": {1: good, "b": good},
        "array": np.array(good),
    }[info]
    dead = not case.mask.ne(0).any()
    if info == "odd" and dead:
        case.exact, case.tolerated = False, True
    elif info != "odd" or rows:
        refuse(case, "acc", "reward_extra_info")


def scores(case):
    """token_level_scores beside the rewards."""
    case.exact, case.tolerated = False, True
    tensor = case.rewards.detach().float().contiguous().clone()
    if tensor.numel() and case.rng.random() < 0.5:
        tensor.view(-1)[case.rng.randrange(tensor.numel())] = case.rng.choice([math.nan, math.inf, 6e4, 1e38, -1e38])
    case.more["token_level_scores"] = case.rng.choice(
        [tensor, tensor, tensor.half(), tensor.t(), tensor.to("meta"), 1.0]
    )


HARMLESS = [entropy_outside, strides, other_numbers, uids, other_config]
LOSSY = [expanded, dtype, bad_reward_in_padding, field]
FATAL = [bad_entropy, bad_reward, shape, meta, layout, not_a_tensor, nan_mask, bad_uids, missing, unknown_option]
FATAL += [wrong_value, wrong_config, broken_omegaconf, odd_base, scores]


# ------------------------------------------------------------------------------------------------- chains of the family

TRANSFORMS = [name for name in MEMBERS.own if isinstance(MEMBERS[name], Transform)]
OWN_BASES = [name for name in MEMBERS.own if name not in TRANSFORMS]
SETTINGS = {name: settings_of(MEMBERS[name]) for name in MEMBERS.own}
CHAIN_FAULTS = [strides, other_numbers, uids, bad_uids, nan_mask]


def make_chain_case(seed):
    """A chain of up to three transforms over any base, each with options of its own samples; in it or by its name."""
    rng = random.Random(f"chain {seed}")
    rewards, mask, index, entropy = batch(rng)
    names = rng.sample(TRANSFORMS, rng.choice([1, 1, 2, 3]))
    names = [name for name in names if name not in CLIP_SETTERS or name == first_of(names, CLIP_SETTERS)]
    base = rng.choice([*BASES, *OWN_BASES])
    extreme, credit = False, {"base": base, "transforms": names}
    for name in [*names, *([base] if base in MEMBERS else [])]:
        section, ordinary = rng.choice(SETTINGS[name])
        if parse(MEMBERS[name].options_type, section, "x").refusals():
            continue
        credit[name] = {key: value for key, value in section.items() if key != "base"}
        extreme = extreme or not ordinary
    method = "egsw_plugin"
    if len(names) == 1 and rng.random() < 0.3:
        method = names[0]
        del credit["transforms"]
    more = {"old_log_probs": -entropy * torch.tensor(rng.choice([0.5, 1.0, 3.0]))}
    case = Case(rng, method, {}, rewards, mask, index, entropy, more, {"credit": credit}, exact=not extreme)
    case.compared = False
    # Advantages that vary within a response cannot stay in EGSW's sum behind its end; the batch says whether they do.
    case.tolerated = credit.get("egsw", {}).get("denominator") == "all"
    for fault in rng.sample(CHAIN_FAULTS, rng.choice([0, 0, 0, 1, 2])):
        if not case.refused:
            fault(case)
            case.faults.append(fault.__name__)
    return case


CLIP_SETTERS = ("batch_kl_cov", "archer", "adaptive_clip")  # a chain may hold one


def first_of(names, wanted):
    return next(name for name in names if name in wanted)


# ----------------------------------------------------------------------------------------------- one case, start to end


def make_case(seed):
    """The case of a seed."""
    rng = random.Random(seed)
    method = rng.choice(list(OPTIONS))
    extreme = rng.random() < 0.3
    options = options_for(rng, method, extreme)
    rewards, mask, index, entropy = batch(rng)
    algorithm = {"norm_adv_by_std_in_grpo": False} if rng.random() < 0.2 else {}
    case = Case(rng, method, options, rewards, mask, index, entropy, algorithm=algorithm, exact=not extreme)
    # Against the grain of the default size, which holds a whole batch of this size.
    case.block = rng.choice([loops.BLOCK, loops.BLOCK, 1, 7, None])
    if main_tensor(case) == "old_log_probs":
        case.more["old_log_probs"], case.entropy = -entropy, None
    chosen = rng.sample(HARMLESS, rng.choice([0, 0, 1, 2, 3])) + rng.sample(LOSSY, rng.choice([0, 0, 0, 1]))
    chosen += rng.sample(FATAL, rng.choice([0, 0, 1]))
    for fault in chosen:
        if not case.refused:
            fault(case)
            case.faults.append(fault.__name__)
    return case


def configuration(case):
    """What is passed as config."""
    plain = {**case.algorithm, case.method: case.options}
    if case.config == "dict":
        return plain
    if case.config == "none":
        return None
    if case.config == "omegaconf":
        return OmegaConf.create(plain)
    if case.config == "mixed":
        return {**case.algorithm, case.method: OmegaConf.create(case.options)}
    if case.config == "dataclass":
        config = AlgoConfig(**case.algorithm)
        setattr(config, case.method, case.options)
        return config
    return case.config


def run(case):
    """Call the estimator and check what comes of it; what did not hold is a Failure."""
    tensors = {"entropy": case.entropy, **case.more}
    inputs = [case.rewards, case.mask, *tensors.values()]
    before = [value.clone() if isinstance(value, torch.Tensor) else value for value in inputs]
    normal = compiled.loops_for, loops.BLOCK
    if case.block is None:
        compiled.loops_for = lambda tensor: None
    else:
        loops.BLOCK = case.block
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = get_adv_estimator_fn(case.method)(
                case.rewards, case.mask, case.index, configuration(case), **tensors
            )
    except EGSWPluginError as error:
        check_error(case, str(error))
        return
    except Exception as error:
        raise Failure(
            f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
        ) from error
    finally:
        compiled.loops_for, loops.BLOCK = normal
    if case.refused:
        raise Failure(f"not refused; expected an error about {case.refused}")
    for old, new in zip(before, inputs, strict=True):
        if isinstance(old, torch.Tensor) and not same(old, new):
            raise Failure("an input was modified")
    alive = case.mask.ne(0)
    advantages, returns = result
    for name, tensor in (("advantages", advantages), ("returns", returns)):
        if tensor.shape != case.mask.shape or tensor.dtype != torch.promote_types(case.rewards.dtype, torch.float32):
            raise Failure(f"{name} of shape {tuple(tensor.shape)} and dtype {tensor.dtype}")
        if not tensor[alive].isfinite().all():
            raise Failure(f"{name} are not finite:\n{tensor}")
    if advantages.masked_fill(alive, 0).ne(0).any():
        raise Failure(f"advantages outside the mask:\n{advantages}")
    if advantages.requires_grad:
        raise Failure("advantages with a gradient")
    if case.exact and case.compared:
        compare(case, advantages.double(), expected(case))


def check_error(case, message):
    """An error must be one that was asked for, and name what is wrong."""
    if "The sum of the mask is one" in message and case.mask.ne(0).sum() == 1:
        return  # verl does not whiten a single number
    if case.refused:
        if not case.tolerated and not any(word in message for word in case.refused):
            raise Failure(f"an error that names none of {case.refused}: {message}")
    elif case.exact and not case.tolerated:
        raise Failure(f"a good batch was refused: {message}")
    if not message.strip():
        raise Failure("an error without a message")


def compare(case, result, wanted):
    """Equal up to what float32 leaves of the logits."""
    tolerance = 2e-5
    if case.method == "egsw" and case.mask.ne(0).any():
        entropy = get_main(case).detach().double()[case.mask.ne(0)].abs().max()
        logit = (wanted.abs().max() + abs(case.options.get("alpha", 0.5)) * entropy) / case.options.get(
            "temperature", 3.0
        )
        tolerance = 1e-5 + 5e-7 * float(logit)
    worst = ((result - wanted).abs() / wanted.abs().clamp(min=1)).max() if result.numel() else 0.0
    if not worst <= tolerance:
        raise Failure(f"differs from the loops by {float(worst):.3g} (allowed {tolerance:.3g}):\n{result}\n{wanted}")


def same(old, new):
    if old.layout != torch.strided or old.is_nested or old.is_meta:
        return True
    old, new = old.detach(), new.detach()
    return bool(((old == new) | ((old != old) & (new != new))).all())


# -------------------------------------------------------------------------------------------------------- policy losses


@dataclasses.dataclass
class LossCase:
    """One call of a policy loss. exact, refused: as of `Case`."""

    mode: str
    arguments: dict
    config: object
    weights: torch.Tensor | None
    exact: bool = True
    refused: tuple = ()
    options: dict = dataclasses.field(default_factory=dict)

    def __str__(self):
        lines = [f"{name}={shown(value)}" for name, value in {**self.arguments, "weights": self.weights}.items()]
        return "\n".join([f"loss {self.mode} {self.options} refused={self.refused}", *lines])


def make_loss_case(seed):
    """The policy loss of a seed."""
    rng = random.Random(f"loss {seed}")
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    rows, tokens = rng.choice([0, 1, 2, 5]), rng.choice([0, 1, 3, 8])
    mode, dtype = rng.choice(LOSSES), rng.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16])

    def normal():
        return torch.randn(rows, tokens, generator=generator)

    mask = torch.rand(rows, tokens, generator=generator) < rng.choice([0.0, 0.3, 0.8, 1.0])
    old, advantages, weights = normal() - 1, normal(), normal().exp()
    log_prob = old + 0.3 * normal()
    exact = dtype != torch.bfloat16
    if rng.random() < 0.3:
        log_prob = old + rng.choice([1e3, -1e3, 30.0, 1e30]) * normal()
        exact = False
    if rng.random() < 0.2:
        log_prob = log_prob.masked_fill(
            torch.rand(rows, tokens, generator=generator) < 0.3, rng.choice([math.inf, -math.inf])
        )
        exact = False
    if rng.random() < 0.2:
        advantages = advantages * rng.choice([1e15, 1e-30, 0.0])
        exact = False
    rollout = normal().exp() if rng.random() < 0.3 else None
    tensors = {"old_log_prob": old, "log_prob": log_prob, "advantages": advantages, "rollout_is_weights": rollout}
    if rng.random() < 0.5:  # what stands outside the mask means nothing
        spoil = rng.choice([math.nan, math.inf, -math.inf])
        tensors = {name: None if x is None else x.masked_fill(~mask, spoil) for name, x in tensors.items()}
        weights = weights.masked_fill(~mask, spoil)
    tensors = {name: None if x is None else x.to(dtype) for name, x in tensors.items()}
    tensors["log_prob"] = tensors["log_prob"].requires_grad_()
    mode_of_mean = rng.choice(AGGREGATIONS)
    bounds = rng.choice([(0.2, 0.28), (None, None), (0.0, 0.0), (0.99, 1e6)])
    config = ActorConfig(
        strategy="fsdp", rollout_n=1, use_dynamic_bsz=True, clip_ratio_low=bounds[0], clip_ratio_high=bounds[1]
    )
    if rng.random() < 0.3:
        config.global_batch_info.update(
            dp_size=2, batch_num_tokens=max(int(mask.sum()), 1), global_batch_size=max(rows, 1)
        )
        exact = False
    given = mask.to(rng.choice([torch.bool, torch.int64, torch.float32]))
    case = LossCase(mode, {**tensors, "response_mask": given, "loss_agg_mode": mode_of_mean}, config, weights, exact)
    fault = rng.choice([None] * 8 + ["shape", "weights", "weights shape", "config"])
    if fault == "shape":
        name = rng.choice(["old_log_prob", "log_prob", "advantages", "response_mask"])
        case.arguments[name] = torch.zeros(rng.choice([(rows + 1, tokens), (rows, tokens + 2), (rows,), ()]))
        case.refused = ("shape",)
    elif fault == "config":
        case.config, case.refused = None, ("config",)
    elif fault == "weights" and mode == "egsw":
        case.weights, case.refused = None, ("no weights",)
    elif fault == "weights shape" and mode == "egsw":
        case.weights, case.refused = torch.zeros(rows + 1, tokens), ("shape",)
    if mode not in COMPARED:
        case.options, case.exact = rng.choice(settings_of(MEMBER_LOSSES[mode]))[0], False
    return case


def run_loss(case):
    """Compute the loss and its gradient."""
    member = MEMBER_LOSSES[case.mode]
    arriving = {fields.Field.WEIGHT: case.weights} if case.mode == "egsw" and case.weights is not None else {}
    if numbers := encode(parse(member.options_type, case.options, member.section)):
        arriving[fields.Field.LOSS_OPTIONS] = torch.tensor([numbers] * 3, dtype=torch.float64)
    try:
        with fields.arriving(arriving):
            loss, metrics = get_policy_loss_fn(case.mode)(**case.arguments, config=case.config)
    except EGSWPluginError as error:
        if not any(word in str(error) for word in case.refused):
            raise Failure(f"refused with {error}; expected {case.refused}") from error
        return
    except Exception as error:
        raise Failure(
            f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
        ) from error
    if case.refused:
        raise Failure(f"not refused; expected an error about {case.refused}")
    log_prob, mask = case.arguments["log_prob"], case.arguments["response_mask"].bool()
    loss.backward()
    if not loss.isfinite() or not all(math.isfinite(float(value)) for value in metrics.values()):
        raise Failure(f"loss {loss}, metrics {metrics}")
    if not log_prob.grad.isfinite().all() or log_prob.grad.masked_fill(mask, 0).ne(0).any():
        raise Failure(f"gradient {log_prob.grad}")
    if case.exact:
        wanted = expected_loss(case)
        if not math.isclose(float(loss.detach()), wanted, rel_tol=2e-5, abs_tol=2e-6):
            raise Failure(f"loss {float(loss.detach())}; the loops give {wanted}")


def expected_loss(case):
    """The loss by the loops."""
    given, mask = case.arguments, case.arguments["response_mask"].bool().tolist()
    low, high = case.config.clip_ratio_low, case.config.clip_ratio_high
    low, high = (case.config.clip_ratio if bound is None else bound for bound in (low, high))
    tensors = [given[name].detach().tolist() for name in ("log_prob", "old_log_prob", "advantages")]
    if case.mode in ("egsw", "gtpo"):
        losses = reference_shaping.token_objective_loss(*tensors, mask, low, high)
    else:
        mean = "geometric" if case.mode.endswith("geometric") else "arithmetic"
        losses = reference_shaping.sequence_objective_loss(*tensors, mask, low, high, mean)
    factors = [given["rollout_is_weights"], case.weights if case.mode == "egsw" else None]
    for factor in factors:
        losses = losses if factor is None else {place: loss * float(factor[place]) for place, loss in losses.items()}
    mode = given["loss_agg_mode"]
    if mode == "token-sum":
        return math.fsum(losses.values())
    if mode == "seq-mean-token-sum-norm":
        tokens = max(given["response_mask"].shape[1], 1)
        return reference_shaping.aggregate(losses, mask, "seq-mean-token-sum") / tokens
    return reference_shaping.aggregate(losses, mask, mode)


# -------------------------------------------------------------------------------------------------------------- options


SECTIONS = [
    member.options_type
    for registry in (MEMBERS, MEMBER_LOSSES)
    for member in map(registry.__getitem__, registry.own)
    if dataclasses.fields(member.options_type)
]


def make_section(seed):
    """A class of options, and a section for it of arbitrary depth and types."""
    rng = random.Random(f"section {seed}")
    options_type = rng.choice(SECTIONS)
    keys = [key.partition(".")[0] for key, _, _ in walk(options_type)]

    def value(depth):
        kind = rng.random()
        if depth and kind < 0.3:
            return {
                rng.choice([*keys, "enable", "gamma1", 1, None]): value(depth - 1) for _ in range(rng.randint(0, 3))
            }
        if depth and kind < 0.45:
            return [value(depth - 1) for _ in range(rng.randint(0, 3))]
        return rng.choice([*WRONG_VALUES, 0.5, 1, "group", "batch", "grpo", 1e-310, 1e308])

    if rng.random() < 0.1:
        return options_type, value(2)
    return options_type, {rng.choice(keys) if rng.random() < 0.95 else "x": value(2) for _ in range(rng.randint(0, 4))}


def run_section(options_type, section):
    """Parse it: options of the right types, or an error that names a key of the section."""
    try:
        options = parse(options_type, section, "algorithm.x")
    except EGSWPluginError as error:
        if not str(error).startswith("algorithm.x"):
            raise Failure(f"an error that does not name the key: {error}") from error
        return
    except Exception as error:
        raise Failure(f"{type(error).__name__}: {error}") from error
    for key, default, metadata in walk(options_type):
        value = options
        for name in key.split("."):
            value = getattr(value, name)
        right, samples = type(default), getattr(metadata["check"], "samples", ([],))[0]
        if metadata["controllers"]:
            right = float | Controller
        elif None in samples:
            right = (tuple if any(isinstance(sample, list | tuple) for sample in samples) else float) | None
        elif "auto" in samples:
            right = float | str
        if not isinstance(value, right) or (isinstance(value, float) and not math.isfinite(value)):
            raise Failure(f"{key} became {value!r}")


def check(seed):
    """Everything of one seed; raises Failure with a description."""
    case, chain, loss, section = make_case(seed), make_chain_case(seed), make_loss_case(seed), make_section(seed)
    calls = ((case, run), (chain, run), (loss, run_loss), (section, lambda pair: run_section(*pair)))
    for described, call in calls:
        try:
            call(described)
        except Failure as failure:
            raise Failure(f"seed {seed}: {failure}\n{described}") from failure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the next one has the next number")
    parser.add_argument("--keep-going", action="store_true", help="report every failing case, not only the first")
    arguments = parser.parse_args()
    failures = 0
    for seed in range(arguments.seed, arguments.seed + arguments.cases):
        try:
            check(seed)
        except Failure as failure:
            failures += 1
            print(failure, "\n", flush=True)
            if not arguments.keep_going:
                break
    print(f"{arguments.cases} cases from seed {arguments.seed}: {failures} failed")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
