"""Controllers: rules by hand, and runs that are cut anywhere, against runs that never stopped.

Maps to controllers.py and its use in verl_adapter/step.py. Not exercised: verl's own checkpoint (test_family_runs.py).
"""

import dataclasses
import itertools
import json

import pytest

from egsw_plugin.controllers import FILE, Controllers, PositiveScale, Scale, Step
from egsw_plugin.errors import OptionError
from egsw_plugin.methods import LOSSES, MEMBERS
from egsw_plugin.methods.adaptive_entropy import AdaptiveEntropyOptions
from egsw_plugin.methods.interface import PolicyLoss
from egsw_plugin.methods.rules import Rule
from egsw_plugin.options import Options, option, parse
from egsw_plugin.options.checks import finite, in_range
from egsw_plugin.testing import check

RULES = {
    "skywork": Step(target=0.5, initial=0.0, delta=0.1, max=0.3, gate="now"),
    "trl": Step(target=0.5, initial=0.0, delta=0.1, max=1.0, comparison="at_most", gate="last"),
    "initial": Step(target="initial", initial=0.2, delta=0.05, max=1.0, measure="surprisal"),
    "repo": Scale(target=0.5, initial=0.02, min=0.01, max=0.05),
}
ENTROPIES = [0.6, 0.4, 0.3, 0.5, 0.7, 0.2, 0.1, 0.6]


def measured(entropy, part=1.0):
    return {"entropy": (entropy * 100 * part, 100 * part), "surprisal": ((entropy + 0.1) * 100 * part, 100 * part)}


def values_of(controllers, steps):
    return [controllers.step(measured(ENTROPIES[step - 1]), step) for step in steps]


def test_by_hand():
    """Below 0.5 in steps 2, 3, 6 and 7; at 0.5 in step 4, which counts for `at_most` alone."""
    values = values_of(Controllers(RULES), range(1, 9))
    column = lambda name: [round(value[name], 6) for value in values]  # noqa: E731
    # In step s + 1 the value has moved by step s; `now`: 0 where step s itself is not below the target.
    assert column("skywork") == [0, 0, 0.1, 0, 0, 0, 0.1, 0]
    assert column("repo") == [0.02, 0.01, 0.02, 0.04, 0.02, 0.01, 0.02, 0.04]


def test_trls_rule_by_hand():
    """Steps 2, 3, 4, 6 and 7 are at most 0.5. The value falls after the others, not below 0; it counts after a low."""
    values = [one["trl"] for one in values_of(Controllers(RULES), range(1, 9))]
    assert [round(value, 6) for value in values] == [0, 0, 0.1, 0.2, 0.3, 0, 0.3, 0.4]


def test_the_initial_entropy_is_the_target():
    controllers = Controllers(RULES)
    values = [one["initial"] for one in values_of(controllers, range(1, 9))]
    assert controllers.states["initial"].target == pytest.approx(0.7)  # the first surprisal
    assert [round(value, 6) for value in values] == [0.2, 0.2, 0.25, 0.3, 0.35, 0.3, 0.35, 0.4]


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path, stop):
    whole = values_of(Controllers(RULES), range(1, 9))
    first = Controllers(RULES)
    values = values_of(first, range(1, stop + 1))
    first.save(tmp_path / "global_step_1")
    second = Controllers(RULES)
    assert second.load(tmp_path / "global_step_1")
    assert values + values_of(second, range(stop + 1, 9)) == whole


def test_a_step_in_several_mini_batches_moves_once():
    """verl's separate_async calls the advantage step per mini-batch; the step's entropy is that of all its tokens."""
    whole, parts = Controllers({"x": RULES["trl"]}), Controllers({"x": RULES["trl"]})
    for step, entropy in enumerate(ENTROPIES, 1):
        whole.step(measured(entropy), step)
        for part in (0.25, 0.75):
            parts.step(measured(entropy, part), step)
    assert parts.states["x"].value == pytest.approx(whole.states["x"].value)
    assert parts.states["x"].last == pytest.approx(whole.states["x"].last)


def test_a_step_without_tokens_moves_nothing():
    controllers = Controllers({"x": RULES["trl"]})
    values_of(controllers, [1, 2])
    controllers.step({"entropy": (0.0, 0.0)}, 3)
    before = controllers.states["x"].value
    controllers.step(measured(0.4), 4)
    assert controllers.states["x"].value == before


def test_a_frozen_actor_moves_nothing():
    """As if the run began with the first update; the gate still asks for the entropy of its own step."""
    controllers = Controllers(RULES)
    frozen = [controllers.step(measured(0.1), step, frozen=True) for step in range(1, 5)]
    assert frozen == [{"skywork": 0.0, "trl": 0.0, "initial": 0.2, "repo": 0.02}] * 4
    after = [controllers.step(measured(entropy), step) for step, entropy in enumerate(ENTROPIES, 5)]
    assert after == values_of(Controllers(RULES), range(1, 9))


def test_bounds_hold_from_every_value():
    for rule in (RULES["skywork"], RULES["repo"], Step(initial=1.0, min=0.5, max=1.5, delta=-0.2, target=0.3)):
        for start, low in itertools.product((rule.min, rule.initial, rule.max), (True, False)):
            value = start
            for _ in range(50):
                value = rule.move(value, low)
                assert rule.min <= abs(value) <= rule.max


def saved(tmp_path, rules=None):
    Controllers(rules or RULES).save(tmp_path)
    return json.loads((tmp_path / FILE).read_text())


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda c: c["controllers"].pop("trl"), "it has the state of"),
        (lambda c: c["controllers"].update(other=c["controllers"]["trl"]), "it has the state of"),
        (lambda c: c.update(schema=2), "its schema is 2"),
        (lambda c: c["controllers"]["trl"].update(value="x"), "damaged"),
        (lambda c: c["controllers"]["trl"].pop("value"), "damaged"),
        (lambda c: c.pop("controllers"), "damaged"),
    ],
)
def test_another_state_is_refused(tmp_path, change, message):
    content = saved(tmp_path)
    change(content)
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(OptionError, match=message):
        Controllers(RULES).load(tmp_path)


def test_the_configurations_target_wins_and_the_first_steps_is_kept(tmp_path):
    first = Controllers(RULES)
    values_of(first, [1, 2, 3])
    first.save(tmp_path)
    second = Controllers({name: dataclasses.replace(rule, target=0.25) for name, rule in RULES.items()})
    assert second.load(tmp_path)
    assert {state.target for state in second.states.values()} == {0.25}
    second.step(measured(0.3), 4)
    second.step(measured(0.3), 5)
    assert first.states["trl"].value > second.states["trl"].value == 0  # step 3's 0.3 is no longer too low
    third = Controllers(RULES)
    assert third.load(tmp_path) and third.states["initial"].target == pytest.approx(0.7)


def test_a_target_that_becomes_the_initial_entropy_is_that_of_the_checkpoints_step(tmp_path):
    """And not the number that the run before steered to."""
    first = Controllers({name: dataclasses.replace(rule, target=0.25) for name, rule in RULES.items()})
    values_of(first, [1, 2, 3])
    first.save(tmp_path)
    second = Controllers(RULES)
    assert second.load(tmp_path)
    second.step(measured(0.9), 4)
    assert second.states["initial"].target == pytest.approx(0.4)  # the surprisal of step 3


@pytest.mark.parametrize(
    "name,bounds", [("skywork", dict(min=0.2)), ("repo", dict(max=0.03)), ("repo", dict(min=0.045))]
)
def test_a_value_out_of_the_new_bounds_is_refused(tmp_path, name, bounds):
    controllers = Controllers({name: RULES[name]})
    values_of(controllers, [1, 2, 3, 4] if name == "repo" else [1, 2, 3])
    controllers.save(tmp_path)
    value = controllers.states[name].value
    narrower = dataclasses.replace(RULES[name], **bounds)
    with pytest.raises(OptionError, match=f"its {name} is {value}, which min and max do not allow here; widen them"):
        Controllers({name: narrower}).load(tmp_path)
    assert Controllers({name: dataclasses.replace(RULES[name], min=value, max=value)}).load(tmp_path)


def test_a_file_that_was_cut_is_refused_and_a_missing_one_is_told(tmp_path):
    assert not Controllers(RULES).load(tmp_path / "nowhere")
    saved(tmp_path)
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text()[:40])
    with pytest.raises(OptionError, match="damaged"):
        Controllers(RULES).load(tmp_path)


def test_nothing_is_left_of_an_interrupted_write(tmp_path, monkeypatch):
    """The state of the step before stays whole."""
    saved(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    controllers = Controllers(RULES)
    controllers.states["trl"] = dataclasses.replace(controllers.states["trl"], value=float("nan"))
    with pytest.raises(ValueError):
        controllers.save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == whole


@pytest.mark.parametrize("first", [0.25, 0.5])
@pytest.mark.parametrize("rule", [Step, Scale, PositiveScale])
def test_a_first_value_at_a_bound_is_within(rule, first):
    assert rule(target=0.5, initial=first, min=0.25, max=0.5).refusals() == []
    assert rule(target=0.5, initial=first, min=0.3, max=0.4).refusals() != []


def test_a_scaled_value_below_zero_is_judged_by_its_size():
    assert Scale(target=0.5, initial=-0.25, min=0.25, max=0.5).refusals() == []


def test_a_scaled_coefficient_that_must_not_be_below_zero_stays_at_its_least():
    """Halved twice while the entropy is high, held at min, doubled in the step after the first low one."""
    given = {"coefficient": {"controller": "scale", "target": 0.5, "initial": 0.04, "min": 0.01}}
    rule = parse(AdaptiveEntropyOptions, given, "algorithm.credit.adaptive_entropy").coefficient
    controllers = Controllers({"c": rule})
    values = [controllers.step(measured(entropy), step)["c"] for step, entropy in enumerate([0.9] * 5 + [0.1] * 4, 1)]
    assert values == pytest.approx([0.04, 0.02, 0.01, 0.01, 0.01, 0.01, 0.02, 0.04, 0.08])


@dataclasses.dataclass(frozen=True)
class Warm(Options):
    """An option that must stay above 0, moved by rules of which some do not keep it there."""

    scaled: float = option(0.01, in_range(0, 10, inclusive=False), "> 0", controllers=(Scale(target=0.3, min=0.001),))
    kept: float = option(
        0.01,
        in_range(0, 10, inclusive=False),
        "> 0",
        controllers=(Step(target=0.3, min=0.001), PositiveScale(target=0.3, min=0.001)),
    )


@pytest.mark.parametrize(
    "key,section,message",
    [
        ("scaled", {}, r"x.scaled.min=0.001: scale changes the .* to -min; declare PositiveScale .*: use a num"),
        ("kept", {"controller": "step", "gate": "now"}, r"x.kept.gate='now': this gate sets the option to 0"),
        ("kept", {"controller": "scale", "gate": "last"}, r"x.kept.gate='last': this gate sets the option to 0"),
        ("kept", {"controller": "step"}, None),
        ("kept", {"controller": "scale"}, None),
    ],
)
def test_a_controller_stays_in_the_range_of_its_option(key, section, message):
    if message is None:
        assert getattr(parse(Warm, {key: section}, "x"), key).first == 0.01
    else:
        with pytest.raises(OptionError, match=message):
            parse(Warm, {key: {"target": 0.3, **section}}, "x")


def test_a_default_that_leaves_the_range_of_its_option_is_refused_where_it_is_declared():
    rule = Scale(target=0.3, initial=0.01, min=0.001)
    with pytest.raises(OptionError, match=r"default.min=0.001: scale changes .* to -min"):
        option(rule, in_range(0, 10, inclusive=False), "> 0", controllers=(rule,))


@pytest.mark.parametrize("registry", [MEMBERS, LOSSES])
def test_our_own_controllers_stay_in_the_range_of_their_options(registry):
    for member in registry.values():
        for field in dataclasses.fields(member.options_type):
            for rule in field.metadata.get("controllers", ()):
                parse(member.options_type, {field.name: {"controller": rule.controller}}, "x")


def test_an_option_of_a_sub_section_with_controllers_is_refused_where_it_is_declared():
    @dataclasses.dataclass(frozen=True)
    class Part(Options):
        k: float = option(0.5, finite, "k", controllers=(Step(target=0.3),))

    with pytest.raises(OptionError, match=r"Part.k=.*controller: step.*: an option of a sub-section cannot have"):
        option(Part(), Part, "a sub-section")


STEP = Step(target=0.3, initial=0.1)


def test_the_kit_takes_a_policy_loss_whose_default_is_a_controller():
    @dataclasses.dataclass(frozen=True)
    class Moved(Options):
        beta: float = option(STEP, in_range(0, 1, inclusive=True), "its part", controllers=(STEP,))

    class MovedLoss(PolicyLoss[Moved]):
        """Adds a multiple of the squared log ratio."""

        name = "moved_loss"
        options_type = Moved

        def rule(self, options):
            return Rule(addend=lambda tokens: options.beta * tokens.log_ratio**2)

    assert check(MovedLoss) > 3
