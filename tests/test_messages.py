"""What a user reads about a key or a name that is wrong, and that following it works.

A key in the wrong place that is accepted trains another method than was meant, for weeks. Maps to
egsw_plugin/methods/places.py, options/spelling.py and verl_adapter/misplaced.py. Not exercised: the wording beyond the
keys and values that a user has to copy.
"""

import re
from pathlib import Path

import pytest
from launches import COMPLETE, configuration

from egsw_plugin import doctor
from egsw_plugin.errors import OptionError
from egsw_plugin.methods import LOSSES, MEMBERS
from egsw_plugin.methods.chain import check_options
from egsw_plugin.options import walk
from egsw_plugin.options.spelling import alike
from egsw_plugin.verl_adapter import misplaced, startup
from egsw_plugin.verl_adapter.composition import compose_launch

RECIPES = Path(__file__).parents[1] / "recipes"
LOSS = "actor_rollout_ref.actor.policy_loss.loss_mode"
POLICY_LOSS = "actor_rollout_ref.actor.policy_loss"
EGSW, GTPO, GRPO = (f"algorithm.adv_estimator={name}" for name in ("egsw", "gtpo", "grpo"))
CHAIN = "algorithm.adv_estimator=egsw_plugin"
FIPO = [GRPO, f"{LOSS}=fipo", "actor_rollout_ref.actor.ppo_mini_batch_size=8", "data.train_batch_size=16"]

# The launch, the wrong override, and what its message asks for.
MOVED = [
    ([GTPO], "+algorithm.overlong.enable=True", "+algorithm.gtpo.overlong.enable=true"),
    ([GTPO], "+algorithm.gamma1=0.6", "+algorithm.gtpo.overlong.gamma1=0.6"),
    ([EGSW], "+algorithm.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.Alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.alhpa=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.egsw_alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.egsw_plugin.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.egws.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.egws.alhpa=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.EGSW.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.credits.egsw.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algorithm.kl_ctrl.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algoritm.egsw.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+algo.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+egsw.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+credit.egsw.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], f"+{POLICY_LOSS}.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], f"+{POLICY_LOSS}.egsw.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+actor_rollout_ref.actor.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+trainer.v1.egsw.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW], "+reward.egsw.alpha=0.25", "+algorithm.egsw.alpha=0.25"),
    ([EGSW, "+algorithm.egsw.alpha=0.5"], "+egsw.alpha=0.25", "algorithm.egsw.alpha=0.25"),
    ([EGSW], "+egsw={alpha: 0.25, scope: batch}", "+algorithm.egsw.alpha=0.25 +algorithm.egsw.scope=batch"),
    ([EGSW], "+record.every=5", "+algorithm.record.every=5"),
    ([EGSW], "+actor_rollout_ref.actor.record.every=5", "+algorithm.record.every=5"),
    ([GRPO], "+algorithm.records.every=5", "+algorithm.record.every=5"),
    ([EGSW], "+algorithm.norm_set=joint", "algorithm.adv_estimator=gtpo +algorithm.gtpo.norm_set=joint"),
    ([EGSW], "+algorithm.overlong.enable=True", "algorithm.adv_estimator=gtpo +algorithm.gtpo.overlong.enable=true"),
    ([EGSW], "+high_entropy.rho=0.3", "algorithm.adv_estimator=high_entropy +algorithm.credit.high_entropy.rho=0.3"),
    ([GRPO], "+algorithm.egws.alpha=0.25", "algorithm.adv_estimator=egsw +algorithm.egsw.alpha=0.25"),
    ([CHAIN], "+algorithm.transforms=[egsw]", "+algorithm.credit.transforms=[egsw]"),
    ([CHAIN, "+algorithm.credit.transforms=[egsw]"], "+algorithm.temperature=2", "+algorithm.egsw.temperature=2"),
    (FIPO, f"+{POLICY_LOSS}.decay=16", "+algorithm.credit.fipo.decay=16"),
    (FIPO, "+algorithm.fipo.decay=16", "+algorithm.credit.fipo.decay=16"),
    ([GTPO], "+algorithm.gtpo.overlong=True", "+algorithm.gtpo.overlong.enable=true"),
    ([EGSW], "+algorithm.egsw=0.25", "+algorithm.egsw.alpha=0.25"),
]


def refusal(*overrides):
    with pytest.raises(OptionError) as caught:
        startup.check(configuration(*overrides))
    return str(caught.value)


def described(plan):
    return " ".join(f"{link.name}.{item}" for link in plan.links for item in link.options.describe().split())


@pytest.mark.parametrize("launch,wrong,right", MOVED, ids=[wrong for _, wrong, _ in MOVED])
def test_a_key_in_the_wrong_place(launch, wrong, right):
    """The message gives the overrides to write in its place; they are accepted and have effect."""
    message = refusal(*launch, wrong)
    assert message.endswith((f"Set {right}", f"such as {right}")), message
    settings = right.split(" ")
    replaced = {setting.partition("=")[0] for setting in settings}
    config = configuration(*[one for one in launch if one.partition("=")[0] not in replaced], *settings)
    plan = startup.check(config)
    *_, (key, _, value) = (setting.lstrip("+").partition("=") for setting in settings)
    if key.startswith("algorithm.record"):
        assert str(config.algorithm.record[key.rpartition(".")[2]]) == value
    elif not key.endswith("transforms"):
        assert f"{key.rpartition('.')[2]}={value}" in described(plan)


@pytest.mark.parametrize(
    "overrides,words",
    [
        ([GTPO, "+algorithm.gtpo.alpha=0.5"], ["that is algorithm.egsw.alpha", "'algorithm.gtpo.alpha"[1:], "alpha1"]),
        ([EGSW, "+algorithm.egsw.norm_set=joint"], ["algorithm.gtpo.norm_set or algorithm.grpo_s.norm_set"]),
        ([EGSW, "+algorithm.egsw.every=5"], ["that is algorithm.record.every"]),
        ([EGSW, "+algorithm.egsw.record.every=5"], ["that is algorithm.record.every"]),
        ([EGSW, "+algorithm.egsw.egsw.alpha=1"], ["did you mean 'alpha'?"]),
        ([GTPO, "+algorithm.gtpo.enable=True"], ["did you mean 'overlong.enable'?"]),
        ([GTPO, "+algorithm.gtpo.alpha3=1"], ["did you mean 'alpha1' or 'alpha2'?"]),
        ([EGSW, "+algorithm.credit.alpha=1"], ["did you mean algorithm.egsw.alpha?"]),
        ([CHAIN, "+algorithm.credit.transform=[egsw]"], ["did you mean algorithm.credit.transforms?"]),
        ([CHAIN, "+algorithm.credit.rho=1"], ["algorithm.credit.high_entropy.rho"]),
        ([GRPO, "+algorithm.egsw.alhpa=1"], ["did you mean 'alpha'?"]),
        ([GRPO, "+algorithm.credit.high_entropy.roh=1"], ["did you mean 'rho'?"]),
        ([GRPO, f"{LOSS}=egsw"], ["algorithm.adv_estimator=egsw and +algorithm.egsw.channel=loss"]),
        ([EGSW, "+algorithm.egsw.channel=loss"], [f"set {LOSS}=egsw"]),
        ([EGSW, "+algorithm.adv_estimator.alpha=1"], ["algorithm.adv_estimator={'alpha': 1}: use a name"]),
        ([EGSW, "+trainer.egsw=0.5"], ["these options belong under algorithm.egsw"]),
        ([EGSW, "+egsw.foo=1"], ["these options belong under algorithm.egsw"]),
        ([*FIPO, "+algorithm.fipo.foo=1"], ["these options belong under algorithm.credit.fipo"]),
        # As they were written, under their whole keys.
        ([EGSW, "+algorithm.egsw.alpha=${nope}"], ["algorithm.egsw.alpha='${nope}': ", "'nope' not found"]),
        ([EGSW, "+algorithm.egsw.alpha=${algorithm.gama}"], ["did you mean ${algorithm.gamma}?"]),
        ([EGSW, "+algorithm.egsw=${nope}"], ["algorithm.egsw='${nope}': "]),
        ([EGSW, "+algorithm.egsw.alpha=${oc.env:NOT_SET}"], ["'${oc.env:NOT_SET}': ", "variable 'NOT_SET' not found"]),
        ([EGSW, "actor_rollout_ref.rollout.n=${nope}"], ["actor_rollout_ref.rollout.n='${nope}': "]),
        ([EGSW, "data.train_files=${nope}"], ["data.train_files='${nope}': "]),
        ([CHAIN, "+algorithm.credit.transforms=[${nope}]"], ["algorithm.credit.transforms[0]='${nope}': "]),
        ([f"{LOSS}=${{nope}}"], [f"{LOSS}='${{nope}}': "]),
        (["algorithm.adv_estimator=${nope}"], ["algorithm.adv_estimator='${nope}': "]),
        ([EGSW, "+algorithm.egsw.alpha=???"], ["algorithm.egsw.alpha='???': it has no value yet"]),
        ([EGSW, f"{LOSS}=???"], [f"{LOSS}='???': it has no value yet"]),
    ],
)
def test_what_a_message_says(overrides, words):
    message = refusal(*overrides)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


@pytest.mark.parametrize(
    "overrides",
    [
        [GRPO, f"{LOSS}=egsw", EGSW, "+algorithm.egsw.channel=loss"],
        [EGSW, "+algorithm.egsw.entropy=surprisal", "algorithm.rollout_correction.bypass_mode=True"],
    ],
)
def test_two_settings_that_a_message_names_together(overrides):
    startup.check(configuration(*overrides))


@pytest.mark.parametrize(
    "override",
    [
        "+data.seed=1",
        "+trainer.project=mine",
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.alpha=1",
        "+actor_rollout_ref.model.override_config.attn_implementation=eager",
        "+actor_rollout_ref.actor.fsdp_config.mixed_precision={param_dtype: fp32}",
        "+ray_kwargs.ray_init.runtime_env.env_vars.ALPHA=1",
        "+reward.custom_reward_function.reward_kwargs.threshold=0.5",
        "+algorithm.mine.alpha=1",
        "+algorithm.mine={threshold: 1, eps: 2}",
        "+mine.alpha=1",
    ],
)
def test_keys_of_others_are_left_alone(override):
    config = configuration(EGSW, override)
    assert list(startup._warnings(config, startup.check(config))) == []


@pytest.mark.parametrize(
    "overrides,word",
    [
        ([GRPO, "+algorithm.alpha=1"], "algorithm.egsw.alpha"),
        ([EGSW, "+algorithm.rho=1"], "algorithm.credit.high_entropy.rho"),
        ([EGSW, "+reward.alpha=1"], "algorithm.egsw.alpha"),
        ([EGSW, "+trainer.record=True"], "algorithm.record"),
    ],
)
def test_what_may_be_anothers_is_warned_of(overrides, word):
    config = configuration(*overrides)
    (warning,) = startup._warnings(config, startup.check(config))
    assert "is read by nobody here" in warning and word in warning


def test_through_the_command():
    """`egsw-plugin doctor -- python -m verl.trainer.main_ppo ...`: by the words of a run."""
    launch = ["python", "-m", "verl.trainer.main_ppo", GTPO, "actor_rollout_ref.rollout.n=4"]
    result = doctor.configuration(None, [*launch, "+algorithm.overlong.enable=True"])
    assert result.found == "algorithm.overlong={'enable': True}"
    assert result.fix == "did you mean algorithm.gtpo.overlong? Set +algorithm.gtpo.overlong.enable=true"
    result = doctor.configuration(None, [*launch[:3], GRPO, "data.val_files=${nope}"])
    assert result.found == "data.val_files='${nope}'"


@pytest.mark.parametrize("search", [[], ["hydra.searchpath=[pkg://verl.trainer.config]"]])
@pytest.mark.parametrize("method, key", [("gtpo", "algorithm.adv_estimator"), ("fipo", "policy_loss.loss_mode")])
def test_a_method_that_hydra_does_not_find(search, method, key):
    """A real composition: hydra makes a key of the choice, and only warns."""
    result = doctor.configuration(None, [*COMPLETE, GRPO, *search, f"+method={method}"])
    assert result.status == "failed" and result.found == f"method={method!r}"
    assert key in result.fix and f"'{misplaced.SEARCH}' and +method={method}" in result.fix
    assert doctor.configuration(None, [*COMPLETE, misplaced.SEARCH, f"+method={method}"]).status == "ok"


def test_a_recipe_that_hydra_finds_leaves_no_key():
    choices = ["+method=gtpo", "+machine=fsdp", "+sampling=dapo"]
    config = compose_launch(None, [*COMPLETE, misplaced.SEARCH, *choices])
    assert config.algorithm.adv_estimator == "gtpo" and not {*misplaced.GROUPS} & {*config}
    misplaced.check(config, ["gtpo"])


@pytest.mark.parametrize(
    "key", ["method=mine", "method=grpo", "method=gspo", "machine=gpu", "machine=cpu", "sampling=1"]
)
def test_a_key_that_may_be_ones_own_is_warned_of(key):
    config = compose_launch(None, [*COMPLETE, GRPO, f"+{key}"])
    misplaced.check(config, [])
    (warning,) = misplaced.warnings(config, [])
    assert warning.startswith(f"{key.partition('=')[0]} is read by nobody here; if {misplaced.SEARCH}")


def test_the_groups_of_recipes():
    """Folders whose files fill the whole configuration, and are no recipe of one paper or model."""
    folders = {file.parent for file in RECIPES.glob("*/*.yaml") if "@package _global_" in file.read_text()}
    assert {folder.name for folder in folders if not list(folder.glob("*.md"))} == set(misplaced.GROUPS)


# ------------------------------------------------------------------------------------------------------ every option

OPTIONS = [
    (registry[name], path)
    for registry in (MEMBERS, LOSSES)
    for name in registry.own
    for path, *_ in walk(registry[name].options_type)
]


def slips(name):
    """Every name with one letter left out, doubled, replaced, or two that changed places."""
    for i in range(len(name)):
        yield name[:i] + name[i + 1 :]
        yield name[:i] + "x" + name[i:]
        yield name[:i] + "q" + name[i + 1 :]
        yield name[:i] + name[i + 1 : i + 2] + name[i] + name[i + 2 :]


@pytest.mark.parametrize("member", [*{id(m): m for m, _ in OPTIONS}.values()], ids=lambda member: member.section)
def test_each_slip_in_each_option_is_refused_with_the_right_key_first(member):
    own = {path for one, path in OPTIONS if one is member and "." not in path}
    for path in own:
        for wrong in set(slips(path)) - own - {""}:
            with pytest.raises(OptionError) as caught:
                check_options(member, member.section, {wrong: 1})
            fix = caught.value.fix
            assert path in fix
            as_near = {one for one in own if alike(wrong, one) >= alike(wrong, path)}
            if alike(wrong, path) and "has no such option" not in fix:  # that of another member goes first
                assert re.findall(r"'([\w.]+)'", fix)[0] in as_near


PREFIXES = ["", "algorithm", "actor_rollout_ref", "actor_rollout_ref.actor", POLICY_LOSS, "critic", "trainer"]
GROUPED = [*PREFIXES, "data", "reward", "trainer.v1"]


@pytest.mark.parametrize("place", GROUPED)
def test_each_option_at_each_wrong_place_is_refused_with_its_key(place):
    """Bare where nobody else's is to be expected, and with its member's name, right or misspelt, anywhere."""
    parts = tuple(place.split(".")) if place else ()
    for member, path in OPTIONS:
        right = f"{member.section}.{path}"
        top, _, inner = path.partition(".")
        wrong = [(top, {inner: 1} if inner else 1)] if place in PREFIXES else []
        wrong += [(member.name, {path: 1}), (member.name[:-1] + "q", {path: 1}), (f"{member.name}_{path}", 1)]
        for key, value in wrong:
            if (parts == ("algorithm",) and key in misplaced.OURS) or (inner and "_" in key and key.endswith(path)):
                continue  # its own place; no key of the sort
            nested = {key: {top: {inner: 1}} if inner and isinstance(value, dict) and path in value else value}
            added = misplaced.Added(parts, key, nested[key])
            fix = misplaced._refusal(added, [member.name], {})
            assert right in fix, (added, fix)
