"""Model folders: written whole, read back to equal logits, refused when damaged; the records that describe them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.models import batch_of, build, page_row, shared, text_row
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.vocabulary import grow_vocabulary
from vertebra.errors import CheckpointError, ConfigError, FingerprintError
from vertebra.model.description import describe
from vertebra.model.encoders.kinds import ENCODERS, register_encoder
from vertebra.model.encoders.vector import VectorEncoder
from vertebra.model.folder import ModelFiles
from vertebra.model.fresh import new_part
from vertebra.model.model import Model


def logits_of(model, batch=None):
    batch = batch or batch_of(model, [page_row(0), text_row()], side="right")
    with torch.no_grad():
        return model(**batch, return_loss=False, use_cache=False).logits[batch.attention_mask.bool()]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "fused"
    shared("tiny-llama2", towers=True).save(folder)
    return folder


@pytest.fixture
def broken(saved, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "broken")


class TestRoundTrip:
    @pytest.mark.parametrize("inference_mode", [False, True])
    @pytest.mark.parametrize(
        "name", ["tiny-llama2", "tiny-qwen2.5", "tiny-gpt2", "tiny-pythia", "tiny-gemma2", "tiny-opt-narrow"]
    )
    def test_equal_logits(self, name, inference_mode, tmp_path):
        """Untied and tied heads, a scaled embedding, a narrow one, one whose head transformers renames."""
        model = build(name, towers=name == "tiny-llama2")
        model.record = {"statistics": {"bridge": {"q01": [0.0, -1.0]}}}
        model.eval().save(tmp_path / "m")
        again = Model.load(tmp_path / "m", inference_mode=inference_mode)
        assert again.training is not inference_mode
        assert again.backbone.inference_mode is inference_mode
        assert again.backbone.identifier == name
        assert again.backbone.builder == model.backbone.builder
        assert again.record == model.record
        assert again.sizes == model.sizes
        assert again.anchored == ("image",)
        assert torch.equal(logits_of(again.eval()), logits_of(model))

    def test_a_grown_vocabulary_comes_back(self, tmp_path):
        model = build("tiny-qwen2.5").eval()
        grow_vocabulary(model.backbone, ["<ACT>", "<DONE>"])
        model.save(tmp_path / "m")
        again = Model.load(tmp_path / "m").eval()
        assert again.backbone.tokenizer.convert_tokens_to_ids(
            "<ACT>"
        ) == model.backbone.tokenizer.convert_tokens_to_ids("<ACT>")
        assert len(again.backbone.growths) == len(model.backbone.growths)
        assert torch.equal(logits_of(again), logits_of(model))

    def test_the_backbone_is_read_out_of_it(self, saved):
        expected = logits_of(shared("tiny-llama2", towers=True), batch_of(shared(), [text_row()]))
        for options in ({}, {"inference_mode": True, "weights": True}):
            backbone = load_backbone(saved, **options).eval()
            batch = batch_of(shared(), [text_row()])
            logits = backbone(input_ids=batch.input_ids, use_cache=False).logits[batch.attention_mask.bool()]
            assert torch.equal(logits, expected)

    def test_the_backbone_alone_is_a_plain_folder(self, saved, tmp_path):
        from transformers import AutoModelForCausalLM

        Model.load(saved).backbone.save(tmp_path / "lm")
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
        ids = torch.tensor([[1, 20, 30]])
        assert torch.equal(plain(ids).logits, shared("tiny-llama2", towers=True).backbone.llm(ids).logits)

    def test_nobody_else_loads_half_of_it(self, saved):
        """A plain model type in config.json would let transformers fill the language model with noise."""
        from transformers import AutoModelForCausalLM

        with pytest.raises(ValueError, match=r"vertebra"):
            AutoModelForCausalLM.from_pretrained(saved)

    def test_every_tensor_once(self, tmp_path):
        model = build("tiny-qwen2.5")
        assert model.backbone.llm.config.tie_word_embeddings
        model.save(tmp_path / "m")
        names = load_file(tmp_path / "m" / "model.safetensors").keys()
        assert "backbone.llm.model.embed_tokens.weight" in names
        assert "backbone.llm.lm_head.weight" not in names

    def test_training_does_not_write_into_the_mapped_file(self, saved):
        before = (saved / "model.safetensors").read_bytes()
        model = Model.load(saved)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        assert (saved / "model.safetensors").read_bytes() == before

    def test_another_type(self, saved):
        model = Model.load(saved, inference_mode=True, dtype="bfloat16")
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        bound = 0.05 * float(logits_of(shared("tiny-llama2", towers=True)).abs().max())
        got = logits_of(model)
        assert float((got.float() - logits_of(shared("tiny-llama2", towers=True))).abs().max()) < bound

    def test_saved_into_shards(self, tmp_path, monkeypatch):
        monkeypatch.setattr("vertebra.model.folder.SHARD", 200_000)
        model = build().eval()
        model.save(tmp_path / "m")
        assert len(list((tmp_path / "m").glob("model-*.safetensors"))) > 1
        assert torch.equal(logits_of(Model.load(tmp_path / "m").eval()), logits_of(model))

    def test_from_gathered_tensors(self, tmp_path):
        """Sharded training gathers the tensors itself and hands them over."""
        model = build("tiny-qwen2.5").eval()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        expected = logits_of(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        model.save_pretrained(tmp_path / "m", state_dict=state)
        assert torch.equal(logits_of(Model.load(tmp_path / "m").eval()), expected)


class TestStateDict:
    def test_tied_heads_go_and_come_back(self):
        model, other = build("tiny-qwen2.5"), build("tiny-qwen2.5", seed=1)
        with torch.no_grad():
            model.backbone.llm.get_input_embeddings().weight.mul_(2)
        state = model.state_dict()
        assert "backbone.llm.lm_head.weight" not in state
        assert other.load_state_dict(state, strict=True).missing_keys == []
        head, embedding = other.backbone.llm.get_output_embeddings(), other.backbone.llm.get_input_embeddings()
        assert head.weight is embedding.weight
        assert torch.equal(head.weight, model.backbone.llm.get_output_embeddings().weight)

    def test_inside_another_module(self):
        outer, other = (torch.nn.Sequential(build("tiny-qwen2.5", seed=seed)) for seed in (0, 1))
        assert other.load_state_dict(outer.state_dict()).missing_keys == []


class TestWholeOrNot:
    def test_a_folder_that_is_not_empty(self, saved):
        model = shared("tiny-llama2", towers=True)
        before = sorted(path.name for path in saved.iterdir())
        with pytest.raises(CheckpointError, match=r"not empty"):
            model.save(saved)
        assert sorted(path.name for path in saved.iterdir()) == before
        model.save(saved, overwrite=True)
        assert sorted(path.name for path in saved.iterdir()) == before

    def test_a_failure_leaves_nothing(self, tmp_path, monkeypatch):
        model = build()
        model.record = {"not": object()}  # cannot be written as JSON
        with pytest.raises(TypeError):
            model.save(tmp_path / "m")
        assert list(tmp_path.iterdir()) == []

    def test_a_structure_without_weights_is_not_saved(self, saved, tmp_path):
        model = Model(load_backbone("tiny-llama2", inference_mode=True))
        with pytest.raises(CheckpointError, match=r"have no weights yet"):
            model.save(tmp_path / "m")


def change(file, edit):
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


class TestDamaged:
    def test_a_backbone_alone(self, tmp_path):
        from vertebra.backbone.tiny import tiny_checkpoint

        load_backbone("tiny-llama2").save(tmp_path / "b")
        with pytest.raises(CheckpointError, match=r"is a backbone alone: use load_backbone"):
            Model.load(tmp_path / "b")
        with pytest.raises(CheckpointError, match=r"is no model folder of ours"):
            Model.load(tiny_checkpoint("tiny-llama2"))
        with pytest.raises(CheckpointError, match=r"has no record of parts"):
            describe(tmp_path / "b")

    def test_absent_and_cut_off(self, broken, tmp_path):
        with pytest.raises(CheckpointError, match=r"there is no folder"):
            Model.load(str(tmp_path / "none"))
        weights = broken / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-50])
        for read in (Model.load, describe):
            with pytest.raises(CheckpointError, match=r"is truncated"):
                read(broken)
        weights.unlink()
        with pytest.raises(CheckpointError, match=r"has no weights"):
            Model.load(broken)

    def test_tensors_that_lack_or_do_not_fit(self, broken):
        file = broken / "model.safetensors"
        tensors = load_file(file)
        tensors.pop("parts.proprio.projector.fc1.bias")
        tensors["parts.boxes.projector.fc1.weight"] = torch.zeros(3, 3)
        tensors["parts.lidar.weight"] = torch.zeros(1)
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(CheckpointError) as caught:
            Model.load(broken)
        for why in (
            "`parts.proprio.projector.fc1.bias` is missing",
            "is (3, 3), expected",
            "`parts.lidar.weight` belongs to no part",
        ):
            assert why in str(caught.value)

    def test_backbone_tensors_that_lack(self, broken):
        file = broken / "model.safetensors"
        tensors = load_file(file)
        tensors.pop("backbone.llm.model.norm.weight")
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
            Model.load(broken)

    def test_records(self, broken):
        file = broken / "vertebra.json"
        whole = file.read_text()
        change(file, lambda data: data["parts"]["boxes"]["encoder"].update(kind="box table"))
        with pytest.raises(CheckpointError, match=r"part `boxes` .* kind `box table`.*Did you mean `box tables`"):
            Model.load(broken)
        file.write_text(whole)
        change(file, lambda data: data["parts"]["boxes"].pop("projector"))
        for read in (Model.load, describe):
            with pytest.raises(CheckpointError, match=r"projector"):
                read(broken)
        for name in ("backbone", "parts", "record"):
            file.write_text(whole)
            change(file, lambda data, name=name: data.update({name: [1, "a"]}))
            with pytest.raises(CheckpointError, match=rf"`{name}` of .* holds a list"):
                Model.load(broken)
        file.write_text(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match=r"not valid JSON"):
            Model.load(broken)

    def test_another_tokenizer(self, broken):
        other = load_backbone("tiny-mistral").tokenizer
        other.add_tokens(["robot"])
        other.save_pretrained(broken)
        with pytest.raises(FingerprintError):
            Model.load(broken)


class TestOwnEncoder:
    def test_made_known_before_loading(self, tmp_path):
        class Gripper(VectorEncoder):
            kind = "gripper"

        backbone = load_backbone("tiny-llama2")
        Model(backbone, {"gripper": new_part(backbone, Gripper(2))}).save(tmp_path / "m")
        with pytest.raises(CheckpointError, match=r"made known with `register_encoder`"):
            Model.load(tmp_path / "m")
        register_encoder(Gripper)
        try:
            assert isinstance(Model.load(tmp_path / "m").parts["gripper"].encoder, Gripper)
            with pytest.raises(ConfigError, match=r"exists already"):
                register_encoder(Gripper)
        finally:
            del ENCODERS["gripper"]


def test_the_companions_alone(tmp_path):
    ModelFiles(shared()).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "config.json",
        "vertebra.json",
        "tokenizer.json",
        "generation_config.json",
    }
