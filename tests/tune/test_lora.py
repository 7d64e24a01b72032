"""LoRA: its targets, its names, saving and loading exactly what was trained, and merging."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from tests.tune.models import backbone, batch_for, some_ids, trained, with_parts
from vertebra.backbone.tiny import TINY
from vertebra.backbone.vocabulary import grow_vocabulary, new_row_ids
from vertebra.errors import CheckpointError, ConfigError
from vertebra.tune.adapter import load_adapter, save_adapter
from vertebra.tune.choose import TuneConfig, choose
from vertebra.tune.gradients import check_gradients
from vertebra.tune.lora import LoraSettings, add_lora, peft_quiet
from vertebra.tune.merge import merge, merge_in_place, probe_logits


def train_a_little(model, steps: int = 3) -> None:
    """Real steps, so that B is no longer zero and new rows have moved."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch.manual_seed(0)  # GPT-2 has dropout
    text = "Pick up" + "".join(f" {t}" for g in model.growths if not g.is_pad for t in g.tokens) + " the red block"
    ids = some_ids(model, text)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.eval()


@pytest.fixture(scope="module")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained adapter with a new token, on tiny-llama2; beside it the logits that it gave."""
    model = backbone()
    grow_vocabulary(model, ["<ACT>"])
    adapter = choose(model, TuneConfig(stage="lora", lora=LoraSettings(r=4)))
    train_a_little(model)
    folder = save_adapter(model, adapter, tmp_path_factory.mktemp("run") / "a", extra={"statistics": {"x": 1}})
    torch.save(probe_logits(model), folder.parent / "logits.pt")
    return folder


def expected_logits(folder: Path) -> list[torch.Tensor]:
    return torch.load(folder.parent / "logits.pt")


LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
OPT = {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
# Written by hand: every linear of a layer, by family; all others have LLaMA's.
LINEARS = {
    "tiny-phi2": {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"},
    "tiny-phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "tiny-gpt2": {"c_attn", "c_proj", "c_fc"},
    "tiny-pythia": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "tiny-opt": OPT,
    "tiny-opt-narrow": OPT | {"project_in", "project_out"},
}


@pytest.mark.parametrize("name", TINY)
def test_default_targets_are_all_linears_but_the_head(name: str):
    model = backbone(name)
    leaves = LINEARS.get(name, LLAMA)
    head = model.llm.get_output_embeddings()
    weights = {type(m).__name__: m for m in model.llm.modules()}
    linear = tuple(type(m) for kind, m in weights.items() if kind in ("Linear", "Conv1D"))
    expected = {n for n, m in model.llm.named_modules() if isinstance(m, linear) and m is not head}
    assert {n.rpartition(".")[2] for n in expected} == leaves
    adapter = add_lora(model, LoraSettings(r=2))
    found = {n.partition(".lora_A")[0] for n, _ in model.llm.named_modules() if n.endswith("lora_A")}
    assert found == expected
    assert model.llm.get_output_embeddings() is head
    config = adapter.language.peft_config["default"]
    assert set(config.target_modules) == leaves, "endings, not full names"
    assert "default" in next(n for n, _ in model.llm.named_parameters() if "lora_A" in n)


def test_defaults_are_openvlas():
    settings = LoraSettings()
    assert (settings.r, settings.alpha, settings.dropout, settings.init) == (32, 16, 0.0, "gaussian")


def test_towers_and_projector_only_by_choice():
    model = with_parts()
    choose(model, TuneConfig(stage="lora", lora=LoraSettings(r=2)))
    assert not any(".lora_" in name for name in trained(model) if not name.startswith("backbone"))
    model = with_parts()
    choose(model, TuneConfig(stage="lora", lora=LoraSettings(r=2, projector=True)))
    assert "parts.image.projector.fc2.lora_A.default.weight" in trained(model)
    assert "parts.image.projector.fc1.lora_B.default.weight" in trained(model)
    model(**batch_for(model)).loss.backward()
    check_gradients(model).require_good()


def test_the_start_depends_on_the_seed_alone():
    first, again, other = (backbone() for _ in range(3))
    state = torch.get_rng_state()
    add_lora(first, LoraSettings(r=2), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    add_lora(again, LoraSettings(r=2), seed=1)
    add_lora(other, LoraSettings(r=2), seed=2)
    name = next(n for n, _ in first.named_parameters() if "lora_A" in n)
    assert torch.equal(dict(first.named_parameters())[name], dict(again.named_parameters())[name])
    assert not torch.equal(dict(first.named_parameters())[name], dict(other.named_parameters())[name])


@pytest.mark.parametrize("name", TINY)
def test_new_rows_train_beside_the_adapter_and_no_other_row_moves(name: str):
    model = backbone(name)
    grow_vocabulary(model, ["<ACT>", "<B>"])
    embedding = model.llm.get_input_embeddings().weight.detach().clone()
    choose(model, TuneConfig(stage="lora", lora=LoraSettings(r=2)))
    train_a_little(model)
    merge_in_place(model)
    after = model.llm.get_input_embeddings().weight.detach()
    moved = (after != embedding).any(1).nonzero()[:, 0].tolist()
    assert moved == new_row_ids(model)


def test_an_adapter_comes_back_exactly(adapter_folder: Path):
    model, _ = load_adapter(backbone(), adapter_folder)
    model.eval()
    for found, expected in zip(probe_logits(model), expected_logits(adapter_folder), strict=True):
        assert torch.equal(found, expected)
    assert model.growths[-1].tokens == ("<ACT>",)
    assert not trained(model)
    record = json.loads((adapter_folder / "vertebra.json").read_text())
    assert record["statistics"] == {"x": 1}
    assert record["backbone"]["prompt_builder"] == model.builder


def test_peft_alone_loads_the_folder(adapter_folder: Path):
    model = backbone()
    grow_vocabulary(model, ["<ACT>"])
    with peft_quiet():
        wrapped = peft.PeftModel.from_pretrained(model.llm, adapter_folder, subfolder="lora_adapter")
    wrapped.eval()
    for found, expected in zip(probe_logits(model), expected_logits(adapter_folder), strict=True):
        assert torch.equal(found, expected)


def test_no_whole_matrix_is_saved(adapter_folder: Path):
    saved = load_file(adapter_folder / "lora_adapter" / "adapter_model.safetensors")
    assert all(t.numel() < 5000 for t in saved.values())
    assert any("trainable_tokens_delta" in name for name in saved)


def test_parts_trained_beside_an_adapter_come_back(tmp_path: Path):
    model = with_parts()
    adapter = choose(
        model, TuneConfig(stage="lora", lora=LoraSettings(r=2, projector=True), train=("parts.image.encoder",))
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 if "lora_B" in name else 0.1)
    save_adapter(model, adapter, tmp_path / "a")
    base = with_parts()
    load_adapter(base, tmp_path / "a", trainable=True)
    assert trained(base) == trained(model)
    batch = batch_for(model)
    assert torch.equal(base.eval()(**batch).loss, model.eval()(**batch).loss)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2", "tiny-phi3"])
def test_merging_in_place_equals_peft(name: str):
    ours, theirs = backbone(name), backbone(name)
    for model in (ours, theirs):
        grow_vocabulary(model, ["<ACT>"])
        adapter = choose(model, TuneConfig(stage="lora", lora=LoraSettings(r=4)), seed=3)
        train_a_little(model)
    merge_in_place(ours)
    theirs.llm = adapter.language.merge_and_unload()
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


def test_merging_dora_falls_back_to_peft():
    model = backbone()
    choose(model, TuneConfig(stage="lora", lora=LoraSettings(r=2, dora=True)))
    train_a_little(model)
    before = probe_logits(model)
    merge_in_place(model)
    assert max(float((a - b).abs().max()) for a, b in zip(probe_logits(model), before, strict=True)) < 1e-3


def test_merge_writes_a_plain_folder_and_tells_the_difference(adapter_folder: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    report = merge("tiny-llama2", adapter_folder, tmp_path / "out", dtype="float32")
    assert report.good
    # On one probe the unmerged fp32 model is itself 5e-4 from fp64 (logits up to 14), the merged one 1e-4.
    assert report.exact < 1e-4 * report.largest_logit
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert type(plain).__name__ == "LlamaForCausalLM"
    again = backbone(str(tmp_path / "out")).eval()
    for found, expected in zip(probe_logits(again), expected_logits(adapter_folder), strict=True):
        assert torch.allclose(found, expected, atol=1e-4 * report.largest_logit)
    assert json.loads((tmp_path / "out" / "vertebra.json").read_text())["statistics"] == {"x": 1}
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        merge("tiny-llama2", adapter_folder, tmp_path / "out")


def test_merging_twice_is_refused(adapter_folder: Path, tmp_path: Path):
    merge("tiny-llama2", adapter_folder, tmp_path / "out", dtype="float32")
    with pytest.raises(CheckpointError, match=r"merged into .* already"):
        merge(tmp_path / "out", adapter_folder, tmp_path / "twice")
    (tmp_path / "out" / "vertebra.json").unlink()  # a plain folder: its weights tell
    with pytest.raises(CheckpointError, match="this is another base"):
        merge(tmp_path / "out", adapter_folder, tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_merge_that_differs_too_much_writes_nothing(adapter_folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="NOT good"):
        merge("tiny-llama2", adapter_folder, tmp_path / "out", dtype="bfloat16", bound=1e-6)
    assert not (tmp_path / "out").exists()


def test_wrong_bases(adapter_folder: Path):
    with pytest.raises(CheckpointError, match=r"trained on `tiny-llama2`.*another base: `tiny-mistral`"):
        load_adapter(backbone("tiny-mistral"), adapter_folder)
    grown = backbone()
    grow_vocabulary(grown, ["<OTHER>"])
    with pytest.raises(CheckpointError, match="without growing it"):
        load_adapter(grown, adapter_folder)
    twice = backbone()
    load_adapter(twice, adapter_folder)
    with pytest.raises(CheckpointError, match="has an adapter already"):
        load_adapter(twice, adapter_folder)


def test_damaged_adapters(adapter_folder: Path, tmp_path: Path):
    import shutil

    with pytest.raises(CheckpointError, match="is no folder"):
        load_adapter(backbone(), tmp_path / "none")
    broken = tmp_path / "broken"
    shutil.copytree(adapter_folder, broken)
    file = broken / "lora_adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_adapter(backbone(), broken)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors missing"):
        load_adapter(backbone(), broken)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ("q_porj",)}, "no linear is called q_porj. Linears: .*q_proj"),
        ({"layers": (7,)}, "a model with layers 0 to 1"),
        ({"towers": True}, "the model has no encoder"),
    ],
)
def test_settings_that_cannot_work(settings: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        add_lora(backbone(), LoraSettings(**settings))


def test_layers_and_targets_can_be_chosen():
    model = backbone()
    add_lora(model, LoraSettings(r=2, targets=("q_proj", "mlp.up_proj"), layers=(1,)))
    found = {n.partition(".lora_A")[0] for n, _ in model.llm.named_modules() if n.endswith("lora_A")}
    assert found == {"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"}
