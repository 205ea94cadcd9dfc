"""Refusals and the greeting at start-up: everything that can be known to be wrong before the first rollout.

Members are known by what they declare (`Requirements`) alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import gcd, inf
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from .. import __version__
from ..console import say, warn_once
from ..errors import BridgeError, MemberError, OptionError
from ..fields import Field
from ..kernels import compiled
from ..methods import LOSSES, MEMBERS
from ..methods.chain import Chain, Link, compile_for
from ..methods.interface import Objective
from ..methods.places import CHAIN, CREDIT, ESTIMATOR, LOSS_MODE, OWN
from ..methods.registry import is_file
from ..options import encode, show, walk
from ..options.spelling import close, question
from ..versions import TRIED_VERL
from . import bases, contract, estimators, misplaced, nodes, recording, worker
from .configuration import (
    MISSING,
    Plan,
    Sections,
    get,
    is_missing,
    is_ours,
    is_set,
    plan_of,
    readable,
    section,
    select,
    unresolved,
)

AGGREGATION = "actor_rollout_ref.actor.loss_agg_mode"
KL_LOSS = "actor_rollout_ref.actor.use_kl_loss"
KL_COEF = "actor_rollout_ref.actor.kl_loss_coef"
CLIP = "actor_rollout_ref.actor.clip_ratio"
CLIPPED = {Field.CLIP_LOW, Field.CLIP_HIGH}
CALCULATE_ENTROPY = "actor_rollout_ref.actor.calculate_entropy"
ENTROPY_COEFF = "actor_rollout_ref.actor.entropy_coeff"
MINI_BATCH = "actor_rollout_ref.actor.ppo_mini_batch_size"
CRITIC_MINI_BATCH = "critic.ppo_mini_batch_size"
# Keys of the number of GPUs over which FSDP splits a sequence: a key of verl's older form, where above 1, goes first.
SPLIT = {
    MINI_BATCH: (
        "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
        "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size",
    ),
    CRITIC_MINI_BATCH: ("critic.fsdp.ulysses_sequence_parallel_size",),
}
STRATEGY = {MINI_BATCH: "actor_rollout_ref.actor.strategy", CRITIC_MINI_BATCH: "critic.strategy"}
NODES, GPUS = "trainer.nnodes", "trainer.n_gpus_per_node"
RESPONSES = "actor_rollout_ref.rollout.n"
BYPASS = "algorithm.rollout_correction.bypass_mode"
AGENT_LOOP = "actor_rollout_ref.rollout.agent.agent_loop_config_path"
TASK_REWARDS = "distillation.distillation_loss.use_task_rewards"
COMPUTED_WITH = {  # tensors that verl computes with one of these settings alone
    "rollout_log_probs": ("actor_rollout_ref.rollout.calculate_log_probs",),
    "ref_log_prob": (KL_LOSS, "algorithm.use_kl_in_reward"),
    "values": ("critic.enable",),
}
# The field that each of these settings of the actor has verl read.
NEEDED_SETTING = {Field.KL_WEIGHT: KL_LOSS, Field.ENTROPY_COEF: CALCULATE_ENTROPY}


def install(config_module: Any) -> None:
    """Have verl's own `validate_config`, which runs before Ray starts, check our part as well."""
    verl_validate = config_module.validate_config

    @functools.wraps(verl_validate)
    def validate_config(config: Any, *args: Any, **kwargs: Any) -> Any:
        plan = check(config)
        result = verl_validate(config, *args, **kwargs)
        if plan is not None and plan.links:  # without, a worker that lacks the plugin changes nothing
            nodes.check_nodes_once_ray_is_up()
        return result

    config_module.validate_config = validate_config


def check_trainer(config: Any, trainer: str, old_trainer: str | None = None) -> None:
    """Called as verl builds its trainer, of module `trainer`: check again (other launchers skip validation), and say
    what will run. old_trainer: its class, where that is verl's old one or derives from it.

    Warnings come here and not from `check`, because verl validates in another process as well: each is said once.
    """
    import verl

    plan = check(config, old_trainer)
    if plan is None:
        return
    if plan.links or takes_part(config) is not None:
        needed = (contract.CORE, trainer, contract.LOSSES) if plan.links else (trainer,)
        if broken := contract.broken(*needed):
            raise BridgeError(
                f"{ESTIMATOR}={get(config, 'algorithm').adv_estimator}: this verl ({verl.__version__}) is not as "
                f"egsw-plugin {__version__} needs it. It lacks {'; '.join(broken)}; install one that was tried: "
                f"{', '.join(TRIED_VERL)}"
            )
        if verl.__version__ not in TRIED_VERL:
            warn_once(
                f"verl {verl.__version__} has what egsw-plugin {__version__} needs by name, but was not tried with it; "
                f"tried were {', '.join(TRIED_VERL)}"
            )
    if plan.links:
        nodes.check_nodes()
    for conflict in (*MEMBERS.conflicts(), *LOSSES.conflicts()):
        warn_once(conflict)
    for warning in _warnings(config, plan):
        warn_once(_literal(warning, config))
    if plan.chain is None:
        return
    name = plan.chain.name
    loss = select(config, LOSS_MODE, "vanilla")
    options = f" {plan.loss.options.describe()}".rstrip() if plan.loss is not None else ""
    compile_for(plan.chain)
    if why := compiled.attempt()[1]:
        warn_once(f"the advantage step runs in torch, to the same result, slower and in more memory: {why}")
    say(
        f"egsw-plugin {__version__} on verl {verl.__version__}: adv_estimator={name} {_described(plan.chain)}; "
        f"policy loss {loss}{options}"
    )


def takes_part(config: Any) -> Plan | None:
    """What a configuration asks of an advantage step, or None where that is verl's own."""
    plan = plan_of(config)
    nothing = not plan.links and plan.chain is None and recording.options_of(config.algorithm) is None
    return None if nothing else plan


def _described(chain: Chain) -> str:
    """The chain with all options on one line."""
    if chain.name != CHAIN and chain.name == chain.links[-1].name:
        options = chain.links[-1].options.describe()
        own = isinstance(chain.base, Link) or "base" in {key for key, *_ in walk(type(chain.links[-1].options))}
        return options if own else f"base={chain.base} {options}".rstrip()
    base = chain.base.name if isinstance(chain.base, Link) else chain.base
    parts = [f"base={base}", f"transforms={show(tuple(link.name for link in chain.transforms))}"]
    for link in chain.links:
        parts += [f"{link.name}.{item}" for item in link.options.describe().split()]
    return " ".join(parts)


def check(config: Any, old_trainer: str | None = None) -> Plan | None:
    """Refuse a configuration that cannot work; return what it asks for, or None if it is not one of reinforcement
    learning. old_trainer: as in `check_trainer`; before a trainer is built, trainer.use_v1 is believed.

    Raises `OptionError` with the key, the value and the fix.
    """
    if get(config, "algorithm") is None:
        return None
    try:
        return _checked(config, old_trainer)
    except OmegaConfBaseException as error:
        raise readable(error, config) from None
    except OptionError as error:
        raise OptionError(error.key, error.value, _literal(error.fix, config)) from error


def _checked(config: Any, old_trainer: str | None) -> Plan:
    name, loss = config.algorithm.adv_estimator, select(config, LOSS_MODE, "vanilla")
    for key, value in ((ESTIMATOR, name), (LOSS_MODE, loss)):
        if isinstance(value, Mapping | list):
            raise OptionError(key, value, "use a name, such as grpo" if key == ESTIMATOR else "use a name")
    if is_missing(config, LOSS_MODE):
        raise OptionError(LOSS_MODE, "???", MISSING)
    _check_holders(name, loss)
    if is_ours(name) and (lost := unresolved(config)):
        raise lost
    recording.check(config, old_trainer)
    misplaced.check(config, _taking_part(config, name, loss))
    _check_loss_name(loss)
    if not is_ours(name):
        _check_name(name)
    plan = plan_of(config)
    _register_files(name, loss)
    for refusal in _refusals(config, plan, loss, old_trainer):
        raise refusal
    return plan


_OUR_SETTING = re.compile(r"(?<![\w+.])(algorithm\.(?:egsw|gtpo|grpo_s|credit|record)[\w.]*)(?==)")


def _literal(text: str, config: Any) -> str:
    """A text in which every setting of ours is as an override has it: with + where the configuration lacks the key."""
    return _OUR_SETTING.sub(lambda match: match[1] if is_set(config, match[1]) else f"+{match[1]}", text)


def _taking_part(config: Any, name: Any, loss: Any) -> list[str]:
    """Names of the members that a configuration asks for, before anything is known of their options."""
    names = [name, loss]
    if is_ours(name):
        credit = section(config.algorithm, "credit")
        credit = credit if isinstance(credit, Mapping) else {}
        transforms = credit.get("transforms") if name == CHAIN else ()
        names += [credit.get("base"), *(transforms if isinstance(transforms, list | tuple) else ())]
    found = []
    for one in names:
        for registry in (MEMBERS, LOSSES):
            if isinstance(one, str) and one in registry:
                with suppress(MemberError):  # which `plan_of` reports
                    found.append(registry[one].name)  # a file's options stand under its member's name
    return [*found, *(["record"] if is_ours(name) else []), *(["credit"] if name == CHAIN else [])]


# ------------------------------------------------------------------------------------------------------------ refusals


def _refusals(config: Any, plan: Plan, loss: str, old_trainer: str | None) -> Iterator[OptionError]:
    """What cannot work, in the order in which a user should hear of it."""
    if plan.chain is not None:
        yield from _old_trainer(config, plan, plan.chain.name, old_trainer)
        yield from _too_few_responses(config, plan.chain)
        yield from _base(config, plan.chain)
        _ = plan.chain.success  # which raises where members disagree
    yield from _options_of_the_loss(config, plan, loss, old_trainer)
    yield from _missing_tensors(config, plan)
    for link in plan.links:
        for option, fix in link.resolved().options.refusals():
            yield OptionError(f"{link.section}.{option}", getattr(link.options, option), fix)
    yield from _distillation(config, plan)
    yield from _fields(config, plan, loss)
    yield from _averaged(plan, loss)
    if plan.loss is not None:
        yield from _options_that_cannot_travel(plan.loss)
    if old_trainer is None and select(config, "trainer.use_v1", True):
        yield from _unequal_shares(config)
    if not select(config, AGENT_LOOP):  # sessions of one's own may have several outputs, and a batch more mini-batches
        yield from _nothing_on_policy(config, plan)


def _old_trainer(config: Any, plan: Plan, name: str, trainer: str | None) -> Iterator[OptionError]:
    """The bridge is for the V1 trainer; in the old one there is what a patched verl hands over itself."""
    key, old, fix = "trainer.use_v1", "the old trainer", "set trainer.use_v1=True"
    value: bool | str = False
    patch = ", or patch verl (patches/apply.py)"
    if select(config, key, True):
        if trainer is None:
            return
        # Launchers of their own, as those of verl.experimental, build it whatever the setting says.
        key, value, old = ESTIMATOR, name, f"{trainer}, a form of verl's old trainer,"
        fix, patch = "start verl.trainer.main_ppo, whose trainer.v1.trainer_mode may be separate_async", ""
    if not _patched():
        yield OptionError(key, value, f"{old} hands no entropy to adv_estimator={name}; {fix}{patch}")
    for link in plan.links:
        for field, option in link.requirements.fields.items():
            place = f"{link.section}.{option}" if option else ESTIMATOR
            given = getattr(link.options, option) if option else name
            yield OptionError(place, given, f"{old} carries no {field.value}s; {fix}")
        if (success := link.requirements.success) is not None and success.field is not None:
            place = f"{link.section}.success"
            fix = f"{old} hands over no such field; {fix}, or {place}=score"
            yield OptionError(place, success.field, fix)
    for controlled in plan.controlled:
        yield OptionError(f"{CREDIT}.{controlled}", "controller", f"{old} keeps no state of controllers; {fix}")


def _options_of_the_loss(config: Any, plan: Plan, loss: str, trainer: str | None) -> Iterator[OptionError]:
    """They travel as a field of the V1 trainer's advantage step, also beside an estimator of verl's."""
    if plan.loss is None or not dataclasses.fields(plan.loss.options):
        return
    lacking = "hands no options to a policy loss, and this one has some"
    if not select(config, "trainer.use_v1", True):
        yield OptionError(LOSS_MODE, loss, f"verl's old trainer {lacking}; set trainer.use_v1=True")
    elif trainer is not None:
        fix = f"{trainer}, a form of verl's old trainer, {lacking}; start verl.trainer.main_ppo"
        yield OptionError(LOSS_MODE, loss, fix)


def _patched() -> bool:
    """Whether verl hands over the tensors that an estimator names; the last patch of our series adds `metrics`."""
    from verl.trainer.ppo.ray_trainer import compute_advantage

    return "metrics" in inspect.signature(compute_advantage).parameters


def _missing_tensors(config: Any, plan: Plan) -> Iterator[OptionError]:
    bypass = select(config, BYPASS, False)
    for name, (first, *others) in COMPUTED_WITH.items():
        if any(select(config, key, False) for key in (first, *others)):
            continue
        # In bypass mode verl takes the rollout's for the old ones.
        wanted = ("rollout_log_probs", "old_log_probs") if bypass and name == "rollout_log_probs" else (name,)
        for tensor in wanted:
            if tensor in plan.tensors:
                who = next((link.name for link in plan.links if tensor in link.requirements.tensors), "a controller")
                fix = "".join(f", or {key}=True" for key in others)
                fix = f"{who} needs {tensor}, which verl then does not compute; set it to True{fix}"
                yield OptionError(first, select(config, first, False), fix)
    if not bypass or "entropy" not in plan.tensors:
        return
    fix = "verl then computes no entropy; set it to False"
    for link in plan.links:
        if "entropy" in link.requirements.tensors and "entropy" in link.requirements.without:
            fix += f", or {link.text(link.requirements.without['entropy'])}"
        for name, rule in link.controlled.items():
            if rule.measure == "entropy":
                fix += f", or {link.section}.{name.removeprefix(f'{link.name}.')}.measure=surprisal"
    yield OptionError(BYPASS, True, fix)


def _responses(config: Any) -> float:
    """How many responses to a prompt a step has; enough, where there is none."""
    return inf if select(config, "trainer.val_only", False) else select(config, RESPONSES, 1)


def _too_few_responses(config: Any, chain: Chain) -> Iterator[OptionError]:
    responses = _responses(config)
    for link in chain.links:
        least, why = link.requirements.responses
        if responses < least:
            yield OptionError(RESPONSES, responses, link.text(why))


def _base(config: Any, chain: Chain) -> Iterator[OptionError]:
    varying, before = False, str(chain.base)
    if not isinstance(chain.base, Link):
        bases.check(chain.base, chain.base_key)
        bases.settings(config.algorithm)
        responses, least = _responses(config), bases.VERL_BASES.get(chain.base, bases.VerlBase()).responses
        if responses < least:
            yield OptionError(RESPONSES, responses, f"base {chain.base} compares responses; set it to {least} or more")
        varying = bases.varies(chain.base, config.algorithm)
        if chain.base == bases.GAE:
            yield from _critic(config, chain.base_key)
    for link in chain.links:
        if varying and link.requirements.varying is not None:
            option, value = link.requirements.varying
            fix = f"{before}'s advantages vary within a response; use {value}"
            yield OptionError(f"{link.section}.{option}", getattr(link.options, option), fix)
        if link.requirements.per_token and not link.requirements.fields:  # which act beside the advantages
            varying, before = True, link.name


def _averaged(plan: Plan, loss: str) -> Iterator[OptionError]:
    """GRPO-S's losses and verl's geo_mean give all tokens of a response the mean of their advantages."""
    telling = [] if plan.chain is None else [link for link in plan.chain.links if link.requirements.per_token]
    if telling and (loss == "geo_mean" or (plan.loss is not None and plan.loss.member.averages_credit)):
        names = ", ".join(link.name for link in telling)
        objective = telling[0].requirements.objective
        fix = (
            f"it averages the advantages over each response, and {names} gives each token its own, which is lost; use "
            f"{'vanilla' if objective is None else objective.losses[0]}, or gspo for one ratio a response"
        )
        yield OptionError(LOSS_MODE, loss, fix)


def _critic(config: Any, key: str) -> Iterator[OptionError]:
    if not select(config, "critic.enable", False):
        fix = "verl starts a critic by itself only for adv_estimator=gae; set critic.enable=True"
        yield OptionError(key, bases.GAE, fix)
    if select(config, "algorithm.use_pf_ppo", False):
        fix = f"verl reweighs with adv_estimator=gae only, not with {key}=gae; set it to False"
        yield OptionError("algorithm.use_pf_ppo", True, fix)


def _distillation(config: Any, plan: Plan) -> Iterator[OptionError]:
    """Without task rewards verl trains on the teacher alone."""
    if not select(config, "distillation.enabled", False) or select(config, TASK_REWARDS, True):
        return
    if plan.chain is not None or plan.loss is not None:
        fix = "verl then throws the policy loss away, and with it what advantages and weights would do; set it to True"
        yield OptionError(TASK_REWARDS, False, fix)


def _fields(config: Any, plan: Plan, loss: str) -> Iterator[OptionError]:
    """Every field that is published must be read, and every one that a policy loss needs must be published."""
    published: dict[Field, Link[Any]] = {}
    for link in plan.links:
        published |= {field: link for field in link.requirements.fields}
    member = None if plan.loss is None else plan.loss.member
    for field, link in published.items():
        option = link.requirements.fields[field]
        place = f"{link.section}.{option}" if option else ESTIMATOR
        value = getattr(link.options, option) if option else select(config, ESTIMATOR)
        if (setting := NEEDED_SETTING.get(field)) is not None:
            if not select(config, setting, False):
                what = "there is no KL loss" if field is Field.KL_WEIGHT else "verl computes no entropy in its update"
                yield OptionError(place, value, f"{what}; set {setting}=True")
            elif field is Field.KL_WEIGHT and select(config, KL_COEF, 0.001) == 0:
                fix = f"it is what {link.name} weighs, by {place}; set it above 0, as to 0.001"
                fix += f", or {place}=false" if value is True else ""
                yield OptionError(KL_COEF, select(config, KL_COEF), fix)
        elif member is None or field not in member.reads:
            own = link.name if link.name in LOSSES and field in LOSSES[link.name].reads else CHAIN
            yield OptionError(
                place, value, f"policy loss {loss!r} would ignore the {field.value}s; set {LOSS_MODE}={own}"
            )
        elif member.sequence_ratio and field in (Field.CLIP_LOW, Field.CLIP_HIGH):
            fix = f"policy loss {loss!r} has one ratio a response, which a token's bounds do not fit"
            yield OptionError(place, value, f"{fix}; set {LOSS_MODE}={CHAIN}")
    if Field.ENTROPY_COEF in published and select(config, ENTROPY_COEFF, 0.0) != 0:
        fix = f"{published[Field.ENTROPY_COEF].name} sets the coefficient of the entropy; set this one to 0"
        yield OptionError(ENTROPY_COEFF, select(config, ENTROPY_COEFF), fix)
    for field, how in () if member is None else member.needs.items():
        if field not in published:
            if plan.chain is None:
                yield OptionError(
                    LOSS_MODE, loss, f"this loss needs {how}; {ESTIMATOR} is {config.algorithm.adv_estimator!r}"
                )
            else:
                yield OptionError(
                    LOSS_MODE, loss, f"this loss takes {field.value}s that travel beside the advantages; set {how}"
                )


def _options_that_cannot_travel(loss: Link[Any]) -> Iterator[OptionError]:
    """The workers have no `algorithm` section: options of a policy loss go to them as numbers."""
    try:
        encode(loss.resolved().options)
    except OptionError as error:
        yield OptionError(f"{loss.section}.{error.key}", error.value, error.fix)


def _unequal_shares(config: Any) -> Iterator[OptionError]:
    """Each data-parallel worker takes as many rows of a mini-batch; with dynamic batches verl asserts it only in its
    first update, after a whole rollout."""
    if select(config, "trainer.val_only", False):
        return
    critic = select(config, "critic.enable")
    critic = select(config, ESTIMATOR) == bases.GAE if critic is None else critic
    for key in (MINI_BATCH, CRITIC_MINI_BATCH) if critic else (MINI_BATCH,):
        if select(config, STRATEGY[key]) not in ("fsdp", "fsdp2"):
            continue  # others have their own number of data-parallel workers
        splits = [select(config, one, 1) for one in SPLIT[key]]
        prompts, responses, nodes, gpus = (select(config, one) for one in (key, RESPONSES, NODES, GPUS))
        if not all(isinstance(number, int) and number > 0 for number in (prompts, responses, nodes, gpus, *splits)):
            continue  # verl's to refuse
        split = next((number for number in splits if number > 1), 1)
        rows, workers = prompts * responses, nodes * gpus // split
        if nodes * gpus % split or rows % workers == 0:
            continue
        whole = [str(n) for n in range(1, 2 * gpus) if nodes * n % split == 0 and rows % (nodes * n // split) == 0]
        parallel = f", over sequence parallelism of {split}" if split > 1 else ""
        fix = (
            f"{prompts} prompts of {RESPONSES}={responses} are {rows} rows, which {workers} workers ({NODES}={nodes} "
            f"times {GPUS}={gpus}{parallel}) cannot share equally; set it to a multiple of "
            f"{workers // gcd(workers, responses)}"
        )
        yield OptionError(key, prompts, fix + (f", or {GPUS} to {' or '.join(whole)}" if whole else ""))


def _nothing_on_policy(config: Any, plan: Plan) -> Iterator[OptionError]:
    """With one update a batch the ratio is 1 in every loss."""
    for link in plan.links:
        if link.requirements.off_policy and _on_policy(config):
            value = select(config, MINI_BATCH)
            fix = (
                f"each batch is one mini-batch and is seen once, so that the ratio is 1 and {link.name} does nothing: "
                f"{link.text(link.requirements.off_policy)}; set it below data.train_batch_size, or "
                "actor_rollout_ref.actor.ppo_epochs to 2 or more"
            )
            if select(config, "trainer.v1.trainer_mode", "sync") == "separate_async":
                fix += "; a batch is then trainer.v1.separate_async.parameter_sync_step of them"
            yield OptionError(MINI_BATCH, value, fix)


def _on_policy(config: Any) -> bool:
    """Whether the policy that a loss compares with is always the one that is updated."""
    mini, batch = select(config, MINI_BATCH), select(config, "data.train_batch_size")
    if mini is None or batch is None or select(config, "actor_rollout_ref.actor.ppo_epochs", 1) != 1:
        return False
    return mini >= batch and not select(config, BYPASS, False)


# ------------------------------------------------------------------------------------------------------------ warnings


def _warnings(config: Any, plan: Plan) -> Iterator[str]:
    """What runs, but is perhaps not what was meant."""
    yield from _other_sections(config, plan)
    yield from _pairing(config, plan)
    for link in plan.links:
        for setting in link.requirements.settings:
            if select(config, setting.key, setting.default) == setting.value:
                yield link.text(setting.text)
        yield from (f"{link.section}: {caution}" for caution in link.resolved().options.cautions())
        if link.requirements.weaker_on_policy and _on_policy(config):
            why = link.text(link.requirements.weaker_on_policy)
            yield f"{link.name}: each batch is one mini-batch and is seen once, so that the ratio is 1: {why}"
    if select(config, AGENT_LOOP):
        for error in _nothing_on_policy(config, plan):
            yield f"{error} (unless sessions of your agent loop have several outputs, which make more mini-batches)"
    yield from _opposed(plan)
    yield from _idle_critic(config, plan)
    yield from _without_baseline(config, plan)
    if plan.controlled and select(config, "trainer.save_freq", -1) <= 0:
        frequency, names = select(config, "trainer.save_freq", -1), ", ".join(plan.controlled)
        yield (
            f"trainer.save_freq={frequency}: no checkpoint is written, so that {names} cannot be resumed where it "
            "was; set it above 0"
        )


def _pairing(config: Any, plan: Plan) -> Iterator[str]:
    """Objectives that run, but are not the paper's."""
    loss, aggregation = select(config, LOSS_MODE, "vanilla"), select(config, AGGREGATION, "token-mean")
    links = () if plan.chain is None else plan.chain.links
    asking = [objective for link in links if (objective := link.requirements.objective) is not None]
    if plan.chain is None and plan.loss is not None and plan.loss.requirements.objective is not None:
        asking = [plan.loss.requirements.objective]
    if not asking:
        return
    wanted = asking[0]
    preferred, own = wanted.losses[0], plan.chain is None
    fixes = [] if loss in wanted.losses or own else [f"{LOSS_MODE}={preferred}"]
    fixes += [] if aggregation == wanted.aggregation else [f"{AGGREGATION}={wanted.aggregation}"]
    kl = " and a KL loss" if not own and select(config, KL_LOSS, False) else ""
    fixes += [f"{KL_LOSS}=False"] if kl else []
    clip = {} if any(link.requirements.fields.keys() & CLIPPED for link in links) else _clip(config, wanted)
    # verl's own 0.2 above alone is no reason for a word: many papers have it.
    far = any(not paper / 2 <= bound <= 2 * paper for bound, paper in clip.values())
    if fixes or far:
        fixes += [f"{key}={paper:g}" for key, (bound, paper) in clip.items() if bound != paper]
        subject = f"{LOSS_MODE}={loss}" if plan.chain is None else f"{ESTIMATOR}={plan.chain.name}"
        here, papers = (
            "".join(f", {key.rpartition('.')[2]}={pair[n]:g}" for key, pair in clip.items()) for n in (0, 1)
        )
        yield (
            f"{subject} with policy loss {loss}, {aggregation}{here if far else ''}{kl} is not the objective of "
            f"{wanted.source} ({preferred}, {wanted.aggregation}{papers}, no dual clip, no KL term); for that set "
            f"{' '.join(fixes)}"
        )


def _clip(config: Any, wanted: Objective) -> dict[str, tuple[float, float]]:
    """By how much the ratio may lie below and above 1, here and in the paper, by key; verl judges what is no number."""
    found = {}
    for side, paper in zip(("low", "high"), wanted.clip or (), strict=False):
        bound = select(config, f"{CLIP}_{side}")
        found[f"{CLIP}_{side}"] = (select(config, CLIP, paper) if bound is None else bound, paper)
    return found if all(isinstance(bound, int | float) for bound, _ in found.values()) else {}


def _without_baseline(config: Any, plan: Plan) -> Iterator[str]:
    """A base that compares the responses to a prompt, of which there is one."""
    if plan.chain is None or isinstance(plan.chain.base, Link) or _responses(config) != 1:
        return
    if bases.VERL_BASES.get(plan.chain.base, bases.VerlBase()).compares:
        yield (
            f"{RESPONSES}=1: {plan.chain.base} has no other response to compare one with, and so no baseline; "
            f"set it to 2 or more, or {plan.chain.base_key}={bases.GAE} with critic.enable=True"
        )


def _opposed(plan: Plan) -> Iterator[str]:
    """Members that pull in opposite directions."""
    sides: dict[int, list[str]] = {1: [], -1: []}
    for link in plan.links:
        if link.requirements.direction:
            sides[link.requirements.direction].append(link.name)
    if sides[1] and sides[-1]:
        yield (
            f"{', '.join(sides[1])} gives rare or uncertain tokens more positive credit, {', '.join(sides[-1])} gives "
            "them less: they oppose each other"
        )


def _idle_critic(config: Any, plan: Plan) -> Iterator[str]:
    """A critic of which nothing is read."""
    chain = plan.chain
    if chain is None or chain.base == bases.GAE or "values" in chain.tensors:
        return
    if select(config, "critic.enable", False):
        base = "" if isinstance(chain.base, Link) else f"{chain.base_key}={bases.GAE}, or "
        yield f"critic.enable=True: {chain.name} does not read its values; set {base}critic.enable=False"


def _other_sections(config: Any, plan: Plan) -> Iterator[str]:
    """Options of members that take no part."""
    algorithm = Sections(get(config, "algorithm"))
    name, taking_part = select(config, ESTIMATOR), {link.name for link in plan.links}
    for key in misplaced.SECTIONS:
        if key not in taking_part and get(algorithm.algorithm, key) is not None:
            yield f"algorithm.{key} is set, but {ESTIMATOR} is {name}: these options have no effect"
    for key in algorithm.get("credit") or {}:
        if key not in taking_part and (plan.chain is None or key not in OWN):
            what = "these options have" if key not in OWN else "it has"
            yield f"{CREDIT}.{key} is set, but {ESTIMATOR} is {name}: {what} no effect"
    yield from misplaced.warnings(config, taking_part)


# --------------------------------------------------------------------------------------------------- names and sections


def _register_files(name: Any, loss: Any) -> None:
    """Members of files are known to verl only once a configuration has named them."""
    from verl.trainer.ppo import core_algos

    if isinstance(name, str) and is_file(name):
        estimators.register_one(core_algos, name)
    if isinstance(loss, str) and is_file(loss):
        worker.register_one(core_algos, loss)


def _check_holders(name: Any, loss: Any) -> None:
    """Other packages may have registered functions of their own under our names, before us or after."""
    from verl.trainer.ppo import core_algos

    if is_ours(name):
        worker.check_holder(ESTIMATOR, name, core_algos.ADV_ESTIMATOR_REGISTRY, estimators.REGISTERED)
    if loss in LOSSES:
        worker.check_holder(LOSS_MODE, loss, core_algos.POLICY_LOSS_REGISTRY, worker.REGISTERED)


def _check_loss_name(loss: str) -> None:
    """verl itself notices a loss that it does not have only in the workers, after the first rollout."""
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    if loss not in POLICY_LOSS_REGISTRY and not is_file(str(loss)) and (near := close(loss, LOSSES)):
        raise OptionError(LOSS_MODE, loss, f"verl has no such policy loss; {question(near)}")


def _check_name(name: str) -> None:
    """verl itself notices an estimator that it does not have only after the first rollout."""
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY

    if name in LOSSES:
        estimator = next((one for one in MEMBERS if str(name).startswith(one)), CHAIN)
        fix = f"this is a policy loss; set {LOSS_MODE}={name} and {ESTIMATOR}={estimator}"
        raise OptionError(ESTIMATOR, name, fix)
    if name not in ADV_ESTIMATOR_REGISTRY and (near := close(name, (*MEMBERS, CHAIN))):
        raise OptionError(ESTIMATOR, name, f"verl has no such estimator; {question(near)}")
