"""Every name of verl that the plugin touches, and the facts of verl's source on which it relies.

verl changes without notice, and most changes would not raise: an entropy that is fetched twice, an option read under a
key that moved, a loss that is called with other fields. Each test names the symbol, what it was in verl 0.9.1, and why
the plugin needs it. Maps to egsw_plugin/verl_adapter/ and cpu/; `make newest-verl` runs it against the newest release.
Not exercised: behaviour (the other tests), and the text of verl's log, which only the display of progress reads.
"""

import abc
import ast
import dataclasses
import enum
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "egsw_plugin"


class Symbol(NamedTuple):
    """A name in a module of verl: its parameters or fields in verl 0.9.1, and what for."""

    module: str
    name: str
    expected: str
    why: str


CORE, BASE, LOSSES = "verl.trainer.ppo.core_algos", "verl.trainer.ppo.v1.trainer_base", "verl.workers.utils.losses"
OLD, PLATFORM = "verl.trainer.ppo.ray_trainer", "verl.plugin.platform"
ENGINE = "verl.workers.engine.fsdp.transformer_impl"
SYMBOLS = [
    Symbol("verl", "__version__", "str", "unsupported versions are refused"),
    Symbol("verl.utils.config", "validate_config", "(config, use_reference_policy, use_critic)", "start-up checks"),
    Symbol(
        "verl.trainer.ppo.utils", "need_reference_policy", "(config)", "doctor calls validate_config as main_ppo does"
    ),
    Symbol("verl.trainer.ppo.utils", "need_critic", "(config)", "doctor calls validate_config as main_ppo does"),
    Symbol("verl.trainer.main_ppo", "main", "(config)", "composition.MAIN: what a launch command names"),
    Symbol("verl.trainer.config", "AlgoConfig", "dataclass", "its fields are no misplaced options"),
    Symbol(CORE, "ADV_ESTIMATOR_REGISTRY", "dict", "names of bases and estimators"),
    Symbol(CORE, "POLICY_LOSS_REGISTRY", "dict", "names of policy losses"),
    Symbol(CORE, "register_adv_est", "(name_or_enum)", "registration"),
    Symbol(CORE, "register_policy_loss", "(name)", "registration"),
    Symbol(CORE, "get_adv_estimator_fn", "(name_or_enum)", "base estimators"),
    Symbol(
        CORE,
        "agg_loss",
        "(loss_mat, loss_mask, loss_agg_mode, dp_size=1, batch_num_tokens=None, global_batch_size=None, "
        "loss_scale_factor=None)",
        "policy losses pass it config.global_batch_info",
    ),
    Symbol(
        OLD,
        "RayPPOTrainer.__init__",
        "(self, config, tokenizer, role_worker_mapping, resource_pool_manager, ray_worker_group_cls=class, "
        "processor=None, train_dataset=None, val_dataset=None, collate_fn=None, train_sampler=None, device_name=None)",
        "the old trainer's start checks the configuration",
    ),
    Symbol(
        OLD,
        "compute_advantage",
        "(data, adv_estimator, gamma=1.0, lam=1.0, num_repeat=1, norm_adv_by_std_in_grpo=True, config=None)",
        "without `metrics`: the patches of patches/ are not applied",
    ),
    Symbol(BASE, "PPOTrainer.__init__", "(self, config)", "the trainer's start checks the configuration"),
    Symbol(BASE, "PPOTrainer._compute_advantage", "(self, batch, metrics)", "the bridge's step"),
    Symbol(BASE, "PPOTrainer._save_checkpoint", "(self)", "the state of controllers, saved with it"),
    Symbol(BASE, "PPOTrainer._load_checkpoint", "(self)", "the state of controllers, read after it"),
    Symbol(
        BASE,
        "compute_advantage_for_multi_trajectories",
        "(data, batch_keys, adv_estimator, gamma=1.0, lam=1.0, num_repeat=1, norm_adv_by_std_in_grpo=True, "
        "config=None)",
        "the bridge takes the padded rows from its first argument",
    ),
    Symbol(BASE, "tq.kv_batch_get", "(keys, partition_id, select_fields=None)", "entropy, reward_extra_info"),
    Symbol(
        BASE, "tq.kv_batch_put", "(keys, partition_id, fields=None, tags=None, data_parser=None)", "fields for the loss"
    ),
    Symbol(BASE, "KVBatchMeta", "fields keys, tags, partition_id, fields, extra_info", "which rows a step is about"),
    Symbol("verl.protocol", "DataProto", "fields batch, non_tensor_batch, meta_info", "the step's padded tensors"),
    Symbol(LOSSES, "ppo_loss", "(config, model_output, data, dp_group=None)", "fields for the loss"),
    Symbol(
        "verl.workers.engine_workers",
        "ppo_loss",
        "(config, model_output, data, dp_group=None)",
        "what the actor calls: rebound where it was imported before the plugin",
    ),
    Symbol(
        "verl.trainer.distillation.losses",
        "ppo_loss",
        "(config, model_output, data, dp_group=None)",
        "the same, under distillation",
    ),
    Symbol(LOSSES, "kl_penalty", "(logprob, ref_logprob, kl_penalty)", "weigh_kl"),
    Symbol(
        LOSSES, "no_padding_2_padding", "(tensor, data)", "the current entropy of a micro-batch, for its coefficient"
    ),
    Symbol(
        "verl.utils.fs",
        "copy_to_local",
        "(src, cache_dir=None, filelock='.file.lock', verbose=False, always_recopy=False, use_shm=False)",
        "the vocabulary's size, which bounds the entropy",
    ),
    Symbol(PLATFORM, "PlatformRegistry.register", "(platform)", "cpu: the platform's name"),
    Symbol(
        PLATFORM,
        "PlatformBase",
        "abstract communication_backend_name, cudart, current_device, device_count, device_module, device_name, "
        "empty_cache, get_device_capability, is_available, is_ipc_supported, manual_seed, manual_seed_all, nvtx_range, "
        "profiler_start, profiler_stop, ray_noset_envvars, ray_resource_name, set_allocator_settings, set_device, "
        "synchronize, vendor_name, visible_devices_envvar",
        "cpu: what a platform must have",
    ),
    Symbol(
        "verl.utils.distributed",
        "initialize_global_process_group_ray",
        "(timeout_second=None, backend=None)",
        "cpu: collectives over gloo",
    ),
    Symbol(ENGINE, "CPUOffloadPolicy", "fields pin_memory", "cpu: no pinned memory"),
    Symbol(ENGINE, "load_fsdp_model_to_gpu", "(model)", "cpu: nothing to move"),
    Symbol(
        "verl.workers.engine.fsdp",
        "FSDPEngineWithLMHead",
        "(model_config, engine_config, optimizer_config, checkpoint_config)",
        "cpu: an engine without padding is registered",
    ),
    Symbol(
        "verl.workers.engine.base",
        "EngineRegistry.register",
        "(model_type, backend, device='cuda', vendor=None)",
        "cpu: engines for the device cpu",
    ),
    Symbol(ENGINE, "FSDPEngineWithLMHead._build_module", "(self)", "cpu: the attention of shared prompts"),
    Symbol(ENGINE, "FSDPEngineWithLMHead.prepare_model_inputs", "(self, micro_batch)", "cpu: prompts are stored once"),
    Symbol(
        ENGINE,
        "FSDPEngineWithLMHead.prepare_model_outputs",
        "(self, output, output_args, micro_batch, logits_processor_func)",
        "cpu: log-probabilities and entropy of responses alone",
    ),
    Symbol(
        ENGINE,
        "FSDPEngineWithValueHead",
        "(model_config, engine_config, optimizer_config, checkpoint_config)",
        "cpu: a critic",
    ),
    Symbol(
        "verl.models.transformers.monkey_patch",
        "_flash_attention_forward",
        "(query_states, key_states, value_states, attention_mask, query_length, is_causal, dropout=0.0, "
        "position_ids=None, softmax_scale=None, sliding_window=None, use_top_left_mask=False, softcap=None, "
        "deterministic=None, cu_seq_lens_q=None, cu_seq_lens_k=None, max_length_q=None, max_length_k=None, "
        "target_dtype=None, attn_implementation=None, **kwargs)",
        "cpu: another kernel under sequence parallelism",
    ),
    Symbol(
        "verl.models.transformers.monkey_patch",
        "_ulysses_flash_attention_forward",
        "(query_states, key_states, value_states, attention_mask, query_length, *args, position_ids=None, **kwargs)",
        "cpu: sequence parallelism",
    ),
    Symbol(
        "verl.checkpoint_engine",
        "CheckpointEngine",
        "abstract build_topology, finalize, init_process_group, prepare, receive_weights, send_weights",
        "cpu: weights over gloo",
    ),
    Symbol("verl.checkpoint_engine", "CheckpointEngineRegistry.register", "(backend)", "cpu: the engine's name"),
    Symbol("verl.utils.model", "extract_multi_modal_inputs", "(batch_data, indices=None)", "cpu: images are refused"),
    Symbol(
        "verl.utils.tensordict_utils", "get_non_tensor_data", "(data, key, default)", "cpu: what a micro-batch asks for"
    ),
    Symbol(
        "verl.utils.model",
        "load_valuehead_model",
        "(local_path, torch_dtype, model_config, trust_remote_code)",
        "cpu: a critic without FlashAttention",
    ),
    Symbol(
        "verl.trainer.ppo.v1.replay_buffer",
        "ReplayBuffer.__init__",
        "(self, trainer_mode, trainer_config, max_off_policy_threshold, max_off_policy_strategy, sampler_kwargs, "
        "poll_interval=2.0, refill_fn=None, filter_groups_metric=None, train_batch_size=None, gen_batch_size=None, "
        "max_inflight_gen_batches=1, sync_refill_failed_groups=False)",
        "cpu: a shorter poll_interval",
    ),
]

# verl's estimators as bases.py calls them: the keywords that each must accept.
OUTCOME = "token_level_rewards, response_mask, index, config"
BASES = {
    "gae": "token_level_rewards, response_mask, values, gamma, lam",
    "grpo": f"{OUTCOME}, norm_adv_by_std_in_grpo",
    "grpo_vectorized": OUTCOME,
    "grpo_passk": OUTCOME,
    "rloo": OUTCOME,
    "rloo_vectorized": OUTCOME,
    "opo": OUTCOME,
    "gpg": OUTCOME,
    "reinforce_plus_plus": OUTCOME,
    "reinforce_plus_plus_baseline": OUTCOME,
}

# Keys of verl's configuration that the plugin reads or names. A key that moved would silently read as its default.
KEYS = [
    "algorithm.adv_estimator",
    "algorithm.gamma",
    "algorithm.lam",
    "algorithm.norm_adv_by_std_in_grpo",
    "algorithm.rollout_correction.bypass_mode",
    "algorithm.rollout_correction.rollout_rs",
    "algorithm.use_kl_in_reward",
    "algorithm.use_pf_ppo",
    "actor_rollout_ref.actor.calculate_entropy",
    "actor_rollout_ref.actor.clip_ratio",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.entropy_coeff",
    "actor_rollout_ref.actor.entropy_from_logits_with_chunking",
    "actor_rollout_ref.actor.fsdp_config",
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size",
    "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.policy_loss.loss_mode",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.strategy",
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.model.hf_config_path",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.trust_remote_code",
    "actor_rollout_ref.model.use_fused_kernels",
    "actor_rollout_ref.model.use_remove_padding",
    "actor_rollout_ref.model.use_shm",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path",
    "actor_rollout_ref.rollout.calculate_log_probs",
    "actor_rollout_ref.rollout.checkpoint_engine.backend",
    "actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module",
    "actor_rollout_ref.rollout.n",
    "critic.enable",
    "critic.fsdp.ulysses_sequence_parallel_size",
    "critic.ppo_mini_batch_size",
    "critic.strategy",
    "data.train_batch_size",
    "distillation.distillation_loss.use_task_rewards",
    "distillation.enabled",
    "reward.custom_reward_function.name",
    "reward.custom_reward_function.path",
    "reward.reward_model.enable",
    "reward.reward_model.enable_resource_pool",
    "trainer.critic_warmup",
    "trainer.default_local_dir",
    "trainer.logger",
    "trainer.n_gpus_per_node",
    "trainer.nnodes",
    "trainer.resume_from_path",
    "trainer.resume_mode",
    "trainer.save_freq",
    "trainer.test_freq",
    "trainer.use_v1",
    "trainer.v1.separate_async.parameter_sync_step",
    "trainer.v1.trainer_mode",
    "trainer.val_only",
    "trainer.validation_data_dir",
]
# Below a free-form section, or one of our own; and a page.
FREE = (
    *("algorithm.credit", "algorithm.egsw", "algorithm.gtpo", "algorithm.grpo_s", "algorithm.record"),
    *("reward.reward_kwargs", "reward.reward_model.", "data.md"),
    *("reward.custom_reward_function.reward_kwargs", "actor_rollout_ref.actor.fsdp_config.mixed_precision"),
    "actor_rollout_ref.actor.veomni",  # of another model_engine
)


def find(module, name):
    part = importlib.import_module(module)
    for attribute in name.split("."):
        part = getattr(part, attribute)
    return part


def describe(part):
    """A part of verl as the table writes it: parameters without annotations, fields, or the type."""
    if isinstance(part, (dict, str)):
        return type(part).__name__
    if inspect.isclass(part):
        if dataclasses.is_dataclass(part):
            return "fields " + ", ".join(field.name for field in dataclasses.fields(part))
        if issubclass(part, abc.ABC):
            return "abstract " + ", ".join(sorted(part.__abstractmethods__))
    signature = inspect.signature(inspect.unwrap(part) if inspect.isfunction(part) else part)
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return re.sub(r"<(\S+).*?>", r"\1", str(inspect.Signature(bare)))


@pytest.mark.parametrize("symbol", SYMBOLS, ids=lambda symbol: f"{symbol.module}:{symbol.name}")
def test_a_symbol_is_as_in_verl_0_9(symbol):
    try:
        part = find(symbol.module, symbol.name)
        found = "dataclass" if symbol.expected == "dataclass" and dataclasses.is_dataclass(part) else describe(part)
    except (ImportError, AttributeError) as error:
        found = f"nothing: {error}"
    if found != symbol.expected:
        name = f"{symbol.module}.{symbol.name}"
        lines = [f"{name} is another (needed for: {symbol.why})", f"0.9.1: {symbol.expected}", f"now:   {found}"]
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.parametrize("name", BASES)
def test_a_base_accepts_what_it_is_called_with(name):
    registry = find(CORE, "ADV_ESTIMATOR_REGISTRY")
    assert name in registry
    parameters = inspect.signature(registry[name]).parameters
    catches_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    refused = [] if catches_all else [key for key in BASES[name].split(", ") if key not in parameters]
    assert refused == []


def test_the_table_of_bases_is_complete():
    """A new estimator of verl becomes a base by itself: is it called with what it needs?"""
    from egsw_plugin.verl_adapter import bases
    from egsw_plugin.verl_adapter.configuration import is_ours

    verls = {name for name in find(CORE, "ADV_ESTIMATOR_REGISTRY") if not is_ours(name)}
    unsupported = {name for name, base in bases.VERL_BASES.items() if not base.supported}
    assert verls - unsupported == set(BASES)
    assert set(bases.VERL_BASES) <= verls


def test_the_names_that_no_other_package_takes_are_verls():
    """A member of this name would be taken for verl's estimator or loss, also where verl is not imported."""
    from egsw_plugin import methods

    for registry, own, names in (
        ("ADV_ESTIMATOR_REGISTRY", {*methods.MEMBERS, "egsw_plugin"}, methods.VERL_ESTIMATORS),
        ("POLICY_LOSS_REGISTRY", {*methods.LOSSES}, methods.VERL_LOSSES),
    ):
        verls = {name for name in find(CORE, registry) if name not in own and ".py:" not in name}
        assert verls == set(names)


@pytest.fixture(scope="module")
def config():
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_in_verls_configuration(config, key):
    section = config
    for name in key.split("."):
        assert name in section, key
        section = section._get_node(name)  # as it is: a value may be missing or refer to another key


# Facts of the source


def source(module, name):
    """The syntax tree of a function or class of verl, without our wrappers."""
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(find(module, name)))))


def calls(tree, name):
    """The calls of `name` (dotted, or the last part of one), as source."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and re.search(rf"(^|\.){re.escape(name)}$", ast.unparse(node.func))
    ]


def assigned(tree, name):
    """What is assigned to a variable, each time."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    return [ast.unparse(node.value) for node in nodes if ast.unparse(node.targets[0]) == name]


def test_plugins_are_loaded_by_entry_point_and_without_a_call():
    tree = ast.parse(Path(importlib.import_module("verl").__file__).read_text())
    assert calls(tree, "_entry_points") == ["_entry_points(group='verl.plugins')"]
    assert "_ep.load()" in calls(tree, "load")


def test_main_validates_before_ray_starts():
    """And takes validate_config by name, when verl.utils.config, and hence our wrapper, is already there."""
    tree = ast.parse(inspect.getsource(importlib.import_module("verl.trainer.main_ppo")))
    (main,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "main"]
    called = [ast.unparse(node.func) for node in ast.walk(main) if isinstance(node, ast.Call)]
    assert called.index("validate_config") < called.index("run_ppo")
    assert calls(main, "validate_config") == [
        "validate_config(config=config, use_reference_policy=need_reference_policy(config), "
        "use_critic=need_critic(config))"
    ]


def test_the_trainer_stores_the_entropy():
    tree = source(BASE, "PPOTrainer._compute_old_log_prob")
    assert assigned(tree, "data['entropy']") == ["response_from_nested(data.pop('entropy'), data['response_mask'])"]
    assert "data.select('old_log_probs', 'entropy')" in calls(tree, "select")


def test_the_advantage_step_does_not_fetch_the_entropy():
    """Once it does, the bridge must not fetch it a second time, and may not be needed at all."""
    tree = source(BASE, "PPOTrainer._compute_advantage")
    fetched, written = assigned(tree, "fields")
    assert fetched == (
        "['uid', 'response_mask', 'rm_scores', 'rollout_log_probs', 'old_log_probs', 'ref_log_prob', 'values']"
    )
    assert written == "['advantages', 'returns']"


def test_the_advantage_step_hands_on_its_rows_by_the_modules_name():
    """Our wrapper is found under that name, with the padded rows as the first argument."""
    (call,) = calls(source(BASE, "PPOTrainer._compute_advantage"), "compute_advantage_for_multi_trajectories")
    assert call.startswith("compute_advantage_for_multi_trajectories(data, batch_keys=batch.keys, ")
    assert "adv_estimator=self.config.algorithm.adv_estimator" in call and "config=self.config.algorithm" in call


def test_no_trainer_has_an_advantage_step_of_its_own():
    v1 = importlib.import_module("verl.trainer.ppo.v1")
    trainers = [getattr(v1, name) for name in ("PPOTrainerSync", "PPOTrainerColocateAsync", "PPOTrainerSeparateAsync")]
    assert [cls.__name__ for cls in trainers if "_compute_advantage" in vars(cls)] == []


def test_what_an_estimator_is_called_with():
    tree = source(OLD, "compute_advantage")
    (first,) = assigned(tree, "adv_kwargs")
    keys = re.findall(r"'(\w+)':", first)
    keys += re.findall(r"adv_kwargs\['(\w+)'\] =", ast.unparse(tree))
    from egsw_plugin.verl_adapter.estimators import make_estimator

    assert keys == [
        *("token_level_rewards", "response_mask", "config", "index", "reward_baselines", "non_tensor_batch", "batch"),
        *("sum_pi_squared", "old_log_probs", "rollout_is_weights"),
    ]
    ours = inspect.signature(make_estimator("egsw")).parameters
    # For estimators of verl's own alone: for those of a name, or with what the V1 trainer has for none.
    verls = {
        "non_tensor_batch": "adv_estimator in (AdvantageEstimator.GDPO, 'gdpo')",
        "batch": "adv_estimator in (AdvantageEstimator.GDPO, 'gdpo')",
        "reward_baselines": "'reward_baselines' in data.batch",
    }
    baseline = "AdvantageEstimator.OPTIMAL_TOKEN_BASELINE"
    optimal = f"adv_estimator in ({baseline}, {baseline.replace('.', '.TIR_')})"
    verls |= {"sum_pi_squared": optimal, "rollout_is_weights": optimal}
    assert set(keys) - set(ours) == set(verls)
    for key, condition in verls.items():
        given = f"adv_kwargs['{key}'] ="
        branches = [node for node in ast.walk(tree) if isinstance(node, ast.If) and given in ast.unparse(node)]
        assert ast.unparse(branches[-1].test) == condition
    assert "reward_baselines" not in inspect.getsource(importlib.import_module(BASE))


def test_keys_are_of_uid_session_and_output():
    tree = source("verl.trainer.ppo.v1.utils", "compute_advantage_for_multi_trajectories")
    assert assigned(tree, "fields") == ["key.rsplit('_', 2)"]
    assert ast.unparse(tree).count("if adv_estimator != core_algos.AdvantageEstimator.GRPO:") == 1


def test_the_loss_drops_fields_that_it_does_not_name():
    """Hence the weights are set aside before it; once it keeps them, that is not needed."""
    tree = source(LOSSES, "ppo_loss")
    assert assigned(tree, "fields") == ["['response_mask', 'old_log_probs', 'advantages']"]
    assert [ast.literal_eval(call[len("fields.append(") : -1]) for call in calls(tree, "fields.append")] == [
        "rollout_is_weights",
        "ref_log_prob",
    ]
    assert "data.select(*fields).to_padded_tensor()" in assigned(tree, "data")


def test_what_a_policy_loss_is_called_with():
    tree = source(LOSSES, "ppo_loss")
    (call,) = calls(tree, "policy_loss_fn")
    passed = {keyword.arg for keyword in ast.parse(call).body[0].value.keywords}
    from egsw_plugin.verl_adapter.worker import REGISTERED

    assert len(REGISTERED) >= 5
    for loss in REGISTERED.values():
        assert passed == set(inspect.signature(loss).parameters)


def test_the_global_batch_is_what_agg_loss_takes():
    text = ast.unparse(source(LOSSES, "ppo_loss"))
    given = re.findall(r"config\.global_batch_info\['(\w+)'\] =", text)
    assert given == ["dp_size", "batch_num_tokens", "global_batch_size", "loss_scale_factor"]
    assert set(given) <= set(inspect.signature(find(CORE, "agg_loss")).parameters)


def test_the_length_penalty_is_where_the_warning_looks_for_it():
    tree = source("verl.experimental.reward_loop.reward_manager.dapo", "DAPORewardManager.__init__")
    (place,) = assigned(tree, "overlong_buffer_cfg")
    assert place == "config.reward.get('reward_kwargs', {}).get('overlong_buffer_cfg', None)"


def test_the_kl_loss_is_by_the_modules_name():
    (call,) = calls(source(LOSSES, "ppo_loss"), "kl_penalty")
    assert call == "kl_penalty(logprob=log_prob, ref_logprob=ref_log_prob, kl_penalty=config.kl_loss_type)"


def test_a_checkpoint_of_fsdp_is_of_one_number_of_workers():
    """The launchers read it off the names of files below actor/."""
    manager = "verl.utils.checkpoint.fsdp_checkpoint_manager"
    for method in ("load_checkpoint", "save_checkpoint"):
        text = ast.unparse(source(manager, f"FSDPCheckpointManager.{method}"))
        assert "f'model_world_size_{self.world_size}_rank_{self.rank}.pt'" in text
    assert "os.path.join(global_step_folder, 'actor')" in ast.unparse(source(BASE, "PPOTrainer._load_checkpoint"))


def test_the_sections_by_which_doctor_knows_an_experimental_trainer():
    """verl's own check of a configuration takes one of these trainers, too."""
    folder = Path(inspect.getfile(importlib.import_module("verl"))).parent
    files = {path.stem: path.read_text() for path in folder.glob("experimental/*/config/*.yaml")}
    known = {name for name, text in files.items() if re.search(r"^(async_training|rollout):", text, re.MULTILINE)}
    assert known == files.keys() and len(known) >= 4
    ordinary = (folder / "trainer/config").glob("_generated_ppo_*.yaml")
    assert not any(re.search(r"^(async_training|rollout):", path.read_text(), re.MULTILINE) for path in ordinary)


def test_estimators_of_verls_own_are_named_as_in_its_enumeration():
    names = find(CORE, "AdvantageEstimator")
    assert issubclass(names, str) and issubclass(names, enum.Enum)  # a name and a member are the same key


# The tables above are complete

# What the adapter calls a module of verl that verl, or wrapt, hands it.
HANDED = {
    "core_algos": CORE,
    "trainer_base": BASE,
    "losses": LOSSES,
    "ray_trainer": OLD,
    "config_module": "verl.utils.config",
}
HANDED |= {"trainer_class": f"{BASE}:PPOTrainer", "self.queue": f"{BASE}:tq", "utils": "verl.trainer.ppo.utils"}


def names_used(path):
    """(module, name) of every name of verl in a file: imported, hooked, or an attribute of a module of verl."""
    from egsw_plugin.cpu.patches import PATCHES

    tree = ast.parse(path.read_text())
    patched = {patch.__name__: module for module, patch in PATCHES.items()} if path.name == "patches.py" else {}
    yield from _names_of(tree, dict(HANDED))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in patched:
            yield from _names_of(node, {"module": patched[node.name]})


def _names_of(tree, modules):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "verl":
                    modules[alias.asname or "verl"] = "verl"
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "verl":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if importlib.util.find_spec(node.module).submodule_search_locations and _is_module(name):
                    modules[alias.asname or alias.name] = name
                else:
                    yield node.module, alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (owner := modules.get(ast.unparse(node.value))):
            module, _, prefix = owner.partition(":")
            yield module, f"{prefix}.{node.attr}" if prefix else node.attr
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"verl(\.\w+)+", node.value):
            yield node.value, None


def _is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def files():
    return sorted(PACKAGE.rglob("*.py"))


def test_the_table_of_symbols_is_complete():
    listed = {(symbol.module, symbol.name) for symbol in SYMBOLS}
    modules = {symbol.module for symbol in SYMBOLS}
    unlisted = {}
    for path in files():
        for module, name in names_used(path):
            if name is None:
                known = module in modules or module == "verl.plugins"  # the entry point group
            elif _is_module(f"{module}.{name}") or name == "__name__":
                known = True
            else:
                known = any(module == one and (name == two or two.startswith(f"{name}.")) for one, two in listed)
                known |= name == "__file__"
            if not known:
                unlisted[f"{module}.{name}"] = str(path.relative_to(PACKAGE))
    assert unlisted == {}


def test_nothing_is_listed_that_is_not_used():
    used = {pair for path in files() for pair in names_used(path)}
    used_modules = {module for module, name in used if name is None}
    # Used through an object: a field of a row's description, of the step's data, or a base class's method.
    indirect = {"KVBatchMeta", "DataProto", "main"}
    for symbol in SYMBOLS:
        names = {symbol.name, symbol.name.split(".")[0]}
        direct = any((symbol.module, name) in used for name in names)
        assert direct or symbol.module in used_modules or symbol.name in indirect, symbol


def test_the_list_of_keys_is_complete():
    sections = "|".join(sorted({key.split(".")[0] for key in KEYS}))
    unlisted = {}
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            for key in re.findall(rf"(?<![\w.])(?:{sections})\.(?:\w+\.)*\w+", node.value):
                known = any(listed == key or listed.startswith(f"{key}.") for listed in KEYS)
                if not known and not key.startswith(FREE):
                    unlisted[key] = str(path.relative_to(PACKAGE))
    assert unlisted == {}
