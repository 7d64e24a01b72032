"""Folders that are damaged, incomplete or of something else: one error of ours that names what, and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.interop.openvla.made import DINO, SIGLIP, made_folder, made_oft, statistics
from vertebra import load
from vertebra.errors import CheckpointError, ConfigError, UnknownNameError, VertebraError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_folder(tmp_path_factory.mktemp("folders") / "openvla", shards=2)


@pytest.fixture(scope="module")
def oft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_oft(tmp_path_factory.mktemp("folders") / "oft", shards=1)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "openvla")
    return tmp_path / "openvla"


@pytest.fixture
def oft_folder(oft: Path, tmp_path: Path) -> Path:
    shutil.copytree(oft, tmp_path / "oft")
    return tmp_path / "oft"


def change(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def change_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object], number: int = 0) -> None:
    file = sorted(folder.glob("*.safetensors"))[number]
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    index = folder / "model.safetensors.index.json"
    change(index, lambda c: c["weight_map"].update(dict.fromkeys(tensors, file.name)))


def refused(folder: Path, says: str, error: type[VertebraError] = CheckpointError, **options: Any) -> None:
    with pytest.raises(error, match=says):
        load(folder, **options)


def test_a_missing_shard(folder: Path):
    sorted(folder.glob("*.safetensors"))[1].unlink()
    refused(folder, "lacks 1 of 2 shards: model-00002-of-00002.safetensors")


def test_no_weights_at_all(folder: Path, oft_folder: Path):
    for where in (folder, oft_folder):
        for file in where.glob("*.safetensors*"):
            file.unlink()
        refused(where, "has no weights; expected model.safetensors")


def test_a_shard_cut_off(folder: Path):
    file = sorted(folder.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-100])
    refused(folder, "is truncated")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "dataset_statistics.json"])
def test_damaged_json(name: str, folder: Path):
    (folder / name).write_text('{"model_type": "openvla", ')
    refused(folder, f"{name}` is not valid JSON")


def test_no_preprocessor(folder: Path):
    (folder / "preprocessor_config.json").unlink()
    refused(folder, "no preprocessor_config.json, which says how images become pixels")


@pytest.mark.parametrize("name", ["timm_model_ids", "image_sizes", "text_config", "use_fused_vision_backbone"])
def test_a_config_without_what_is_needed(name: str, folder: Path):
    change(folder / "config.json", lambda c: c.pop(name))
    refused(folder, f"lacks {name}")


def test_towers_that_are_swapped(folder: Path):
    change(folder / "config.json", lambda c: c.update(timm_model_ids=[SIGLIP, DINO]))
    refused(folder, r"its tensors are those of dinov2. Are the two towers swapped\?")


def test_tensors_of_towers_that_are_swapped(folder: Path):
    def swap(tensors: dict[str, torch.Tensor]) -> None:
        names = [name for name in tensors if "featurizer" in name]
        taken = {name: tensors.pop(name) for name in names}
        for name, tensor in taken.items():
            other = name.replace(".fused_featurizer.", ".x.").replace(".featurizer.", ".fused_featurizer.")
            tensors[other.replace(".x.", ".featurizer.")] = tensor

    change(folder / "model.safetensors.index.json", lambda c: c.update(weight_map={}))
    for number in (0, 1):
        change_tensors(folder, swap, number)
    refused(folder, "Are the two towers swapped")


def test_a_tower_that_nobody_knows(folder: Path):
    change(folder / "config.json", lambda c: c.update(timm_model_ids=[DINO, "vit_so400m_patch14_siglip_225"]))
    refused(folder, "vit_so400m_patch14_siglip_224.*heads is in no tensor", UnknownNameError)


def test_heads_that_do_not_divide(folder: Path):
    refused(folder, "64 wide, which 12 heads do not divide", heads=(12, 12))
    refused(folder, "one number a tower", ConfigError, heads=(16,))
    assert load(folder, heads=(16, 8)).parts["image"].encoder.towers[1].config["num_attention_heads"] == 8


def test_tensors_that_belong_to_nothing_and_tensors_that_are_missing(folder: Path):
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith("blocks.1.mlp.fc1.weight"))
        tensors[name.replace("fc1", "fc9")] = tensors.pop(name)

    change_tensors(folder, rename)
    index = folder / "model.safetensors.index.json"
    change(index, lambda c: [c["weight_map"].pop(n) for n in list(c["weight_map"]) if "featurizer" in n])
    refused(folder, r"fc1.weight` is missing.*fc9.weight` belongs to nothing. Did you mean")


def test_a_tensor_of_another_shape(folder: Path):
    def cut(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in tensors if name.endswith(("projector.fc2.weight", "fc3.bias")))
        tensors[name] = tensors[name][:-1].contiguous()

    change_tensors(folder, cut)
    refused(folder, r"`projector.fc\d..*is \(\d+.*would be")


def test_a_tensor_of_the_language_model(folder: Path):
    change_tensors(folder, lambda t: t.update({"language_model.model.extra": torch.zeros(2)}))
    refused(folder, "belong to nothing.*model.extra")


def test_fewer_rows_than_tokens(folder: Path):
    change(folder / "config.json", lambda c: c["text_config"].update(vocab_size=1000))
    refused(folder, "embedding rows", VertebraError)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_action_bins": {}}, "`n_action_bins` of .* is {}"),
        ({"pad_to_multiple_of": "64"}, "`pad_to_multiple_of`"),
        ({"timm_override_act_layers": ["relu", None]}, "expected null or one of gelu, quick_gelu"),
        ({"timm_override_act_layers": [None]}, "for each tower"),
    ],
)
def test_configs_that_say_nonsense(changes: dict[str, Any], says: str, folder: Path):
    change(folder / "config.json", lambda c: c.update(changes))
    refused(folder, says)


def test_towers_for_images_of_two_sizes(folder: Path):
    change(folder / "config.json", lambda c: c.update(image_sizes=[28, 42]))
    refused(folder, "images of .28, 42. pixels", ConfigError)
    change(folder / "config.json", lambda c: c.update(image_sizes=[28]))
    refused(folder, "one size a tower")
    change(folder / "config.json", lambda c: c.update(use_fused_vision_backbone=False, image_sizes=[28, 28]))
    refused(folder, "names 2 towers")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["tvf_resize_params"][1].update(size=28), "the same for every tower"),
        (lambda c: c["tvf_resize_params"][0].update(size=[29, 29]), "the tower takes 28"),
        (lambda c: c["tvf_resize_params"][0].update(interpolation=9), "not one of Pillow's"),
        (lambda c: c["tvf_crop_params"][0].update(output_size=[14, 14]), "cuts out"),
        (lambda c: c["tvf_normalize_params"].pop(), "normalises for 1 towers"),
        (lambda c: c.update(tvf_resize_params="all"), "preprocessor_config.json"),
        (lambda c: c.update(tvf_do_letterbox=True, tvf_letterbox_fill=[1, 2, 3]), "stretches images and puts them"),
    ],
)
def test_preparations_that_cannot_be(edit: Callable[[dict[str, Any]], object], says: str, folder: Path):
    change(folder / "preprocessor_config.json", edit)
    refused(folder, says)


def test_a_preprocessor_without_tvf(folder: Path):
    """Then `means` and `stds` are all that is known, as they are to the original."""

    def strip(content: dict[str, Any]) -> None:
        for name in [name for name in content if name.startswith("tvf_")]:
            del content[name]

    change(folder / "preprocessor_config.json", strip)
    towers = load(folder).parts["image"].encoder.towers
    assert towers[0].mean == (0.48, 0.46, 0.41)
    change(folder / "preprocessor_config.json", lambda c: c.update(image_resize_strategy="letterbox"))
    preparation = load(folder).parts["image"].encoder.preparation
    assert (preparation.fit, preparation.ground) == ("letterbox", (127, 127, 127))
    change(folder / "preprocessor_config.json", lambda c: c.update(image_resize_strategy="resize"))
    refused(folder, "resize-crop", UnknownNameError)


def test_statistics_that_are_none(folder: Path):
    file = folder / "dataset_statistics.json"
    file.write_text(json.dumps(statistics()))
    refused(folder, "one data set without its name")
    file.write_text(json.dumps({"x": {"action": {"q01": [1], "q99": [1, 2]}}}))
    refused(folder, "expected q01, q99 and all others of one length")
    file.write_text(json.dumps({"x": {"action": {"mean": [1]}}}))
    refused(folder, "expected q01, q99")


def test_statistics_of_another_robot(oft_folder: Path):
    (oft_folder / "dataset_statistics.json").write_text(json.dumps({"aloha": statistics(14)}))
    refused(oft_folder, "actions of 7 numbers, and its statistics are of .'aloha': 14.")


def head_file(folder: Path) -> Path:
    return folder / "action_head--150000_checkpoint.pt"


def test_a_head_of_another_shape(oft_folder: Path):
    tensors = torch.load(head_file(oft_folder), weights_only=True)
    tensors["module.model.fc1.weight"] = tensors["module.model.fc1.weight"][:, :-1].contiguous()
    torch.save(tensors, head_file(oft_folder))
    refused(oft_folder, r"model.fc1.weight is .* expected")
    tensors.pop("module.model.fc1.weight")
    torch.save(tensors, head_file(oft_folder))
    refused(oft_folder, "is missing; expected the tensors of an L1 head")


def test_a_head_of_another_model(oft_folder: Path, tmp_path: Path):
    from tests.interop.openvla.made import Draw, head_tensors

    torch.save(head_tensors(32, 7, Draw(0)), head_file(oft_folder))
    refused(oft_folder, "reads hidden states 32 wide, and the language model's are 64")


def test_files_that_are_no_tensors(oft_folder: Path):
    torch.save({"model": Path("x")}, head_file(oft_folder))
    refused(oft_folder, "unpickling can run code")
    head_file(oft_folder).write_bytes(b"nothing")
    refused(oft_folder, "is damaged")


def test_files_of_several_steps(oft_folder: Path):
    shutil.copy(head_file(oft_folder), oft_folder / "action_head--50_checkpoint.pt")
    refused(oft_folder, "checkpoints of several steps .action_head: action_head--150000")


def test_a_proprio_projector_of_another_model(oft_folder: Path):
    file = oft_folder / "proprio_projector--150000_checkpoint.pt"
    tensors = torch.load(file, weights_only=True)
    tensors["fc2.bias"] = tensors.pop("module.fc2.bias")[:-1].clone()
    torch.save(tensors, file)
    refused(oft_folder, r"fc2.bias is .63,., expected .64,.")


def test_robots_without_constants(tmp_path: Path):
    where = made_oft(tmp_path / "oft", dims=5, proprio=None, norm_stats={})
    refused(where, "give chunk=…", ConfigError)
    assert load(where, chunk=4).record["policy"]["chunk"] == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chunk": 0}, "chunk=0; expected"),
        ({"chunk": "8"}, "chunk='8'"),
        ({"cameras": ()}, "expected one name or more"),
        ({"cameras": ("image", "image")}, "each once"),
        ({"cameras": "image"}, "is a collection"),
        ({"prompt": "v1"}, "v01"),
        ({"action_vocabulary": 1}, "action_vocabulary=1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], says: str, whole: Path):
    refused(whole, says, ConfigError, **options)


def test_options_of_an_import_on_another_model():
    refused(Path("tiny-llama2"), "chunk, heads: options of OpenVLA's", ConfigError, chunk=8, heads=(1,))


def test_code_in_a_folder_is_never_run(whole: Path):
    assert "raise SystemExit" in (whole / "modeling_prismatic.py").read_text()
    load(whole)
