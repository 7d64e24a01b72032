"""A policy against the plain way to its actions, alone and in a batch; what it refuses, cuts, counts and remembers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import vertebra
from tests.policies.models import DIMS, STATISTICS, TASK, image, policy_model, seen
from vertebra.action.normalization import normalize, unnormalize
from vertebra.action.statistics import lookup
from vertebra.errors import ConfigError, DataError, TooLongError, UnknownNameError
from vertebra.model.model import Model
from vertebra.policies.golden import check_golden, golden_pair
from vertebra.policies.golden_files import read_golden, write_golden
from vertebra.policies.observation import Observation
from vertebra.policies.policy import Policy
from vertebra.policies.settings import PolicySettings


def plain(policy: Policy, observation, instruction: str, key: str) -> np.ndarray:
    """One forward over the whole row for each token, the best of the allowed ids by hand, then the formulas."""
    model, record = policy.model, policy.record
    statistics = lookup(STATISTICS, key)[1]
    proprio = None
    if record.proprio:
        proprio = normalize(observation["proprio"], statistics.proprio, proprio=True)
    row = policy.prompts.row(Observation.of(observation), instruction, proprio)
    batch = model.collate([row.sequence], [row.features])
    allowed = torch.tensor(policy.bins.allowed)
    ids = []
    with torch.no_grad():
        for _ in range(record.chunk * record.dims):
            logits = model(**batch, return_loss=False, logits_to_keep=1).logits[0, -1]
            ids.append(int(allowed[logits[allowed].argmax()]))
            batch = batch.append(torch.tensor([ids[-1:]]))
    values = policy.bins.decode(np.array(ids).reshape(record.chunk, record.dims))
    return unnormalize(values, statistics.action)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5"])
@pytest.mark.parametrize("layout", ["anchored", "before", "after", "raw"])
def test_the_plain_way(name, layout):
    place = "anchored" if layout in ("anchored", "raw") else "slots"
    more = {"raw": {"raw": True, "template": "In: {instruction}\nOut:", "lower": True}, "after": {"images": "after"}}
    model = policy_model(name, place=place, proprio=True, chunk=2, cameras=("image", "wrist"), **more.get(layout, {}))
    policy = Policy(model)
    for seed in (0, 5):
        observation = seen(seed, "image", "wrist", proprio=True)
        chunk = policy.act(observation, TASK, "fractal")
        assert chunk.shape == (2, DIMS)
        assert np.allclose(chunk, plain(policy, observation, TASK, "fractal"), atol=1e-12)
    if layout == "after":
        assert policy.prefixes.hits == 1


@pytest.mark.parametrize("layout", ["before", "after"])
@pytest.mark.parametrize("head", ["tokens", "parallel"])
def test_many_robots_are_each_alone(head, layout):
    attention = "block" if head == "parallel" else "causal"
    model = policy_model(head=head, chunk=4, images=layout, attention=attention)
    policy = Policy(model)
    observations = [seen(n) for n in range(4)]
    texts = ["Go", "Pick up the red block and put it down", "Open the drawer", "Go"]
    together = policy.decide_many(observations, texts, "bridge")
    for row, (observation, text) in enumerate(zip(observations, texts, strict=True)):
        alone = Policy(model).decide(observation, text, "bridge")
        assert np.array_equal(alone.ids, together[row].ids)
        assert np.allclose(alone.entropy, together[row].entropy, atol=1e-4)
        assert np.array_equal(alone.chunk, together[row].chunk)
    same = policy.act_many(observations[:2], "Go", "bridge")
    assert np.array_equal(same[0], together[0].chunk)


@pytest.mark.parametrize("see", ["causal", "block", "row"])
def test_parallel_slots_are_read_one_before(see):
    """One forward by hand, with the blocks that `see` means."""
    policy = Policy(policy_model(head="parallel", chunk=2, attention=see))
    made = policy.decide(seen(3), TASK, "bridge")
    row = policy.prompts.row(Observation.of(seen(3)), TASK, None)
    batch = policy.model.collate([row.sequence], [row.features])
    slots = batch["slot"][..., 0] == batch["segments"].index("action")
    blocks = {
        "causal": torch.zeros_like(batch["block"]),
        "block": slots.int() * 2,
        "row": torch.ones_like(batch["block"]),
    }
    batch["block"] = blocks[see]
    with torch.no_grad():
        logits = policy.model(**batch, return_loss=False).logits[0, slots[0].nonzero()[:, 0] - 1][
            :, policy.bins.ids.tolist()
        ]
    chances = logits.softmax(-1)
    assert np.array_equal(made.ids.ravel(), policy.bins.ids[logits.argmax(-1)])
    assert np.allclose(made.confidence.ravel(), chances.max(-1).values, atol=1e-5)
    entropy = torch.distributions.Categorical(probs=chances).entropy()
    assert np.allclose(made.entropy.ravel(), entropy, atol=1e-4)


def test_sureness_of_tokens():
    policy = Policy(policy_model(chunk=2))
    made = policy.decide(seen(), TASK, "bridge")
    assert made.entropy.shape == made.confidence.shape == made.ids.shape == (2, DIMS)
    assert (made.entropy > 0).all()
    assert (made.entropy <= np.log(8) + 1e-9).all()
    assert (made.confidence >= 1 / 8).all()
    assert policy.decide(seen(), TASK, "bridge", sure=False).entropy is None


@pytest.mark.parametrize("layout", ["before", "after"])
@pytest.mark.parametrize("head", ["tokens", "parallel"])
def test_nothing_but_an_action_can_be_answered(head, layout):
    """Where every action is far less likely than everything else, an end among it."""
    model = copy.deepcopy(
        policy_model(chunk=3, head=head, images=layout, attention="block" if head == "parallel" else "causal")
    )
    policy = Policy(model)
    weight = model.backbone.llm.get_output_embeddings().weight
    row = policy.prompts.row(Observation.of(seen()), TASK, None)
    batch = model.collate([row.sequence], [row.features])
    with torch.no_grad():
        hidden = model(**batch, return_loss=False, output_hidden_states=True, logits_to_keep=1).hidden_states[-1][0, -1]
        weight[list(policy.bins.allowed)] = -100 * hidden
        weight[model.tokenizer.eos_token_id] = 100 * hidden
        assert (
            int(model(**batch, return_loss=False, logits_to_keep=1).logits[0, -1].argmax())
            == model.tokenizer.eos_token_id
        )
    made = policy.decide(seen(), TASK, "bridge")
    assert np.isin(made.ids, policy.bins.ids).all()
    assert made.ids.shape == (3, DIMS)


def test_the_first_ones_are_given():
    model = policy_model(chunk=4)
    whole = Policy(model).act(seen(), TASK, "bridge")
    assert np.array_equal(Policy(model, settings=PolicySettings(execute=2)).act(seen(), TASK, "bridge"), whole[:2])
    kept = policy_model(chunk=4, execute=3)
    assert np.array_equal(Policy(kept).act(seen(), TASK, "bridge"), whole[:3])


def test_ensembling_blends_the_chunks_of_a_robot():
    model = policy_model(chunk=4)
    plainly = Policy(model)
    policy = Policy(model, settings=PolicySettings(ensemble=0.1))
    chunks = [plainly.act(seen(n), TASK, "bridge") for n in range(3)]
    for now in range(3):
        values = np.stack([chunks[t][now - t] for t in range(now + 1)])
        weights = np.exp(-0.1 * np.arange(now + 1))
        expected = (weights[:, None] * values).sum(0) / weights.sum()
        assert np.allclose(policy.act(seen(now), TASK, "bridge"), expected[None])
        assert np.allclose(policy.act(seen(0), TASK, "bridge", robot="other")[0], chunks[0][0]) or now
    policy.reset(0)
    assert np.allclose(policy.act(seen(1), TASK, "bridge")[0], chunks[1][0])


def test_history_is_remembered_until_reset():
    model = policy_model(history=2)
    policy = Policy(model)
    frames = [image(n) for n in range(4)]
    for now in range(4):
        # the oldest one stands in for those before the episode
        shown = [frames[max(0, now - 2)]] * (2 - min(2, now)) + frames[max(0, now - 2) : now]
        alone = Policy(model).act(
            {"images": {"image": frames[now]}, "history": [{"image": i} for i in shown]}, TASK, "bridge"
        )
        assert np.array_equal(policy.act(frames[now], TASK, "bridge"), alone)
    policy.reset()
    fresh = Policy(model).act(frames[3], TASK, "bridge")
    assert np.array_equal(policy.act(frames[3], TASK, "bridge"), fresh)
    row = policy.prompts.row(Observation.of(frames[0]), TASK, None)
    assert row.features["image"].shape[0] == 3


def test_a_camera_buffer_that_is_written_into_again():
    policy, other = Policy(policy_model(history=1)), Policy(policy_model(history=1))
    buffer = image(1)
    policy.act(buffer, TASK, "bridge")
    other.act(image(1), TASK, "bridge")
    buffer[:] = 0
    assert np.array_equal(policy.act(image(2), TASK, "bridge"), other.act(image(2), TASK, "bridge"))


def test_a_masked_camera_is_as_if_nobody_saw_it():
    """The twin keeps its places, and hides them from everybody."""
    model = policy_model(cameras=("image", "wrist"))
    with pytest.raises(DataError, match="camera `wrist` is missing"):
        Policy(model).act(seen(), TASK, "bridge")
    policy = Policy(model, settings=PolicySettings(missing_camera="mask"))
    made = policy.decide(seen(), TASK, "bridge")
    assert policy.counts["missing camera"] == 1
    row = policy.prompts.row(Observation.of(seen(0, "image", "wrist")), TASK, None)
    batch = model.collate([row.sequence], [row.features])
    wrist = batch["segments"].index("image:wrist")
    real = batch["slot"][..., 0] != wrist
    batch["position_ids"] = (real.long().cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        attend = lambda query, key: key.segment != wrist  # noqa: E731
        logits = model(**batch, return_loss=False, logits_to_keep=1, attend=attend).logits[0, -1]
    allowed = torch.tensor(policy.bins.allowed)
    assert int(allowed[logits[allowed].argmax()]) == made.ids[0, 0]
    chances = logits[torch.tensor(policy.bins.ids.copy())].softmax(-1)
    assert np.isclose(float(chances.max()), made.confidence[0, 0], atol=1e-5)
    with pytest.raises(DataError, match="missing"):
        policy.act({"images": {}}, TASK, "bridge")


def test_frames_and_grippers_are_undone():
    model = policy_model(chunk=3, proprio=True, frame="delta", frame_dims=(True, True, False), gripper="binary")
    policy = Policy(model)
    observation = seen(proprio=True)
    made = policy.act(observation, TASK, "bridge")
    raw = unnormalize(policy.decide(observation, TASK, "bridge").values, lookup(STATISTICS, "bridge")[1].action)
    state = observation["proprio"][:3]
    assert np.allclose(made[:, :2], state[:2] + raw.cumsum(0)[:, :2])
    assert np.array_equal(made[:, 2], (raw[:, 2] >= 0.5).astype(float))


def test_keys():
    policy = Policy(policy_model())
    assert policy.keys == ["bridge", "fractal"]
    with pytest.raises(DataError, match="statistics of 2 data sets; name one with `unnorm_key`: bridge, fractal"):
        policy.act(seen(), TASK)
    with pytest.raises(UnknownNameError, match="Did you mean `bridge`"):
        policy.act(seen(), TASK, "brige")
    only = Policy(policy_model(statistics={"bridge": STATISTICS["bridge"]}))
    assert only.decide(seen(), TASK).key == "bridge"
    assert not np.array_equal(policy.act(seen(), TASK, "bridge"), policy.act(seen(), TASK, "fractal"))


def test_all_faults_come_at_once():
    policy = Policy(policy_model(cameras=("image", "wrist"), proprio=True))
    bad = {"images": {"image": image().astype(np.float32), "wrst": image()}, "proprio": [0.0, np.nan]}
    with pytest.raises(DataError) as caught:
        policy.act(bad, "", "bridge")
    message = str(caught.value)
    for part in (
        "float32",
        "Did you mean `wrist`",
        "camera `wrist` is missing",
        "expected 4 numbers",
        "instruction is empty",
    ):
        assert part in message
    with pytest.raises(DataError, match="robot 1: camera `image`: its shape is"):
        Policy(policy_model()).act_many([seen(), image()[0, 0]], "Go", "bridge")


@pytest.mark.parametrize(
    ("observation", "instruction", "message"),
    [
        ({"images": {"image": np.zeros((3, 8, 9), np.uint8)}}, TASK, "channels come last"),
        ({"images": {"image": np.zeros((8, 8, 2), np.uint8)}}, TASK, r"expected \[H, W, 3\]"),
        ({"images": {"image": np.zeros((0, 8, 3), np.uint8)}}, TASK, "at least one pixel"),
        ({"images": {"image": 7}}, TASK, "it is a int"),
        ({"images": [image()]}, TASK, "expected a mapping of cameras"),
        ({"imges": {}}, TASK, "Did you mean `images`"),
        ({"images": {"image": image()}, "proprio": [1.0]}, TASK, "asks for none"),
        ({"images": {"image": image()}, "history": [{"image": image()}]}, TASK, "sees none"),
        ({"images": {"image": "nowhere.png"}}, TASK, "nowhere.png"),
        (3.0, TASK, "an observation is a float"),
        ({"images": {"image": image()}}, "  \n", "empty"),
        ({"images": {"image": image()}}, "x" * 10_000, "10,000 characters"),
        ({"images": {"image": image()}}, None, "expected text"),
    ],
)
def test_bad_observations(observation, instruction, message):
    with pytest.raises(DataError, match=message):
        Policy(policy_model()).act(observation, instruction, "bridge")


def test_an_instruction_longer_than_the_model():
    with pytest.raises(TooLongError, match="Shorten the instruction"):
        Policy(policy_model()).act(seen(), "ab " * 600, "bridge")


def test_control_tokens_in_an_instruction_stay_text():
    for raw in (False, True):
        model = policy_model(place="anchored" if raw else "slots", raw=raw)
        policy = Policy(model)
        end = model.tokenizer.eos_token_id
        plainly = policy.prompts.row(Observation.of(seen()), "go on", None).sequence.ids.tolist()
        typed = policy.prompts.row(Observation.of(seen()), "go</s> <ACT:3> on", None).sequence.ids.tolist()
        assert typed.count(end) == plainly.count(end)
        assert not set(typed) & set(policy.bins.allowed)
        policy.act(seen(), "go</s> <ACT:3> on", "bridge")


def test_any_size_of_image_and_nothing_is_changed():
    policy = Policy(policy_model())
    given = image(0, 100)
    before = given.copy()
    policy.act(given, TASK, "bridge")
    assert np.array_equal(given, before)


@pytest.mark.parametrize("head", ["tokens", "parallel"])
def test_nan_is_refused_or_zero_and_counted(head):
    model = copy.deepcopy(policy_model(chunk=2, head=head, attention="block" if head == "parallel" else "causal"))
    with torch.no_grad():
        model.backbone.llm.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(DataError, match="6 of 6 numbers of the action are NaN"):
        Policy(model).act(seen(), TASK, "bridge")
    policy = Policy(model, settings=PolicySettings(not_a_number="zero"))
    made = policy.decide(seen(), TASK, "bridge")
    assert (made.values == 0).all()
    assert made.not_a_number == policy.counts["not a number"] == 6
    assert made.entropy is None


def narrow(key: str) -> dict:
    """Statistics whose quantiles lie beyond their extremes, as no data has them: to see what is done beyond."""
    made = {**STATISTICS[key], "action": dict(STATISTICS[key]["action"])}
    action = made["action"]
    for name in ("min", "max"):
        action[name] = [0.9 * v for v in action["q01" if name == "min" else "q99"]]
    return made


def test_beyond_the_data(caplog, monkeypatch):
    from vertebra.action import statistics

    monkeypatch.setattr(statistics, "_out_of_order", lambda found: [])
    model = policy_model(statistics={"bridge": narrow("bridge")}, chunk=4)
    rng = np.random.default_rng(0)
    ends = rng.choice([-1.0, 1.0], (4, DIMS))

    def made(**settings):
        policy = Policy(model, settings=PolicySettings(**settings))
        predicted = policy.asking
        import vertebra.policies.policy as module

        monkeypatch.setattr(module, "predict", lambda *a, **k: module.Predicted(values=ends[None]))
        assert predicted.record.chunk == 4
        return policy, policy.act(seen(), TASK, "bridge")

    policy, passed = made()
    assert policy.counts["outside"] == 8, "the masked dimension has no outside"
    ends[:, 0] = 0.0  # other dimensions now; a warning for each of their sets would be many
    policy.act(seen(), TASK, "bridge")
    assert policy.counts["outside"] == 12
    assert sum("actions lie beyond" in record.message for record in caplog.records) == 1
    ends[:, 0] = [-1.0, 1.0, 1.0, -1.0]
    clamped = made(outside="clamp")[1]
    stats = model.record["policy"]["statistics"]["bridge"]["action"]
    assert (clamped[:, :2] <= np.array(stats["max"])[:2] + 1e-12).all()
    assert (clamped[:, :2] >= np.array(stats["min"])[:2] - 1e-12).all()
    assert np.array_equal(clamped[:, 2], passed[:, 2])
    with pytest.raises(
        DataError, match=r"8 numbers of the action lie beyond everything that `bridge` had, in dimensions"
    ):
        made(outside="refuse")


def test_records_of_other_models():
    model = policy_model()
    record = model.record["policy"]

    def changed(**changes):
        return Policy(Model(model.backbone, model.parts, record={"policy": record | changes}))

    ends = model.backbone.eos_token_ids[0]
    with pytest.raises(ConfigError, match="stand for actions and end an answer too"):
        changed(bins={"scheme": "uniform", "ids": [ends, 9]})
    with pytest.raises(ConfigError, match="rows; the record is another model's"):
        changed(bins={"scheme": "uniform", "ids": [5, 10**6]})
    with pytest.raises(ConfigError, match="no such part; its parts are"):
        changed(proprio=4)
    with pytest.raises(
        DataError, match="are another robot's: they are of actions of 3 numbers, and this policy makes 7"
    ):
        changed(dims=7).act(seen(), TASK, "bridge")
    with pytest.raises(ConfigError, match="no record of actions"):
        Policy(Model(model.backbone, model.parts))


def test_settings_without_effect():
    model = policy_model(chunk=2)
    for bad in ({"execute": 3}, {"steps": 4}, {"seed": 1}, {"ensemble": 0.1, "execute": 2}, {"execute": 0}):
        with pytest.raises(ConfigError):
            Policy(model, settings=PolicySettings(**bad))


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("outside", "clip", r"outside is 'clip'; expected one of pass, clamp, refuse\. Did you mean `clamp`"),
        ("missing_camera", "Mask", r"missing_camera is 'Mask'.*`mask`"),
        ("not_a_number", None, "not_a_number is None"),
        ("real_time", "guide", "real_time is 'guide'.*`guided`"),
        ("execute", "2", "execute is '2'; expected an integer"),
        ("execute", 1.5, "execute is 1.5; expected an integer"),
        ("execute", True, "execute is True"),
        ("delay", "1", "delay is '1'"),
    ],
)
def test_a_choice_that_there_is_not_is_no_default(setting, value, message):
    """In Python as in a file: an unknown word must not pass for the one that is meant when nothing is given."""
    with pytest.raises(ConfigError, match=message):
        PolicySettings(**{setting: value})


def test_numbers_of_numpy_are_settings():
    assert PolicySettings(execute=np.int64(2)).execute == 2


def test_one_image_is_the_only_cameras_whatever_its_name():
    policy = Policy(policy_model(cameras=("side",)))
    alone = policy.act(image(), TASK, "bridge")
    assert np.array_equal(alone, policy.act({"images": {"side": image()}}, TASK, "bridge"))
    with pytest.raises(DataError, match=r"unknown camera `observation\.images\.side`\. Did you mean `side`"):
        policy.act({"images": {"observation.images.side": image()}}, TASK, "bridge")


@pytest.mark.parametrize("one", [{"images": {"image": image()}}, Observation(images={"image": image()}), "image.png"])
def test_one_observation_is_no_list_of_them(one):
    with pytest.raises(DataError, match="expected a list, one for each robot"):
        Policy(policy_model()).act_many(one, TASK, "bridge")


def test_every_file_that_cannot_be_read_is_named(tmp_path):
    policy = Policy(policy_model(cameras=("image", "wrist")))
    (tmp_path / "no.png").write_text("no image")
    bad = {"images": {"image": tmp_path / "gone.png", "wrist": tmp_path / "no.png"}}
    with pytest.raises(
        DataError, match=r"robot 0: camera `image`: .*gone\.png.*; camera `wrist`: .*no\.png.*; robot 2: "
    ) as caught:
        policy.act_many([bad, seen(0, "image", "wrist"), bad], "Go", "bridge")
    assert "robot 1" not in str(caught.value)


def test_robots_of_two_data_sets():
    policy = Policy(policy_model())
    both = policy.act_many([seen(0), seen(0)], "Go", ["fractal", "bridge"])
    assert np.array_equal(both[0], policy.act(seen(0), "Go", "fractal"))
    assert np.array_equal(both[1], policy.act(seen(0), "Go", "bridge"))
    with pytest.raises(DataError, match="and 1 keys"):
        policy.act_many([seen(0), seen(0)], "Go", ["fractal"])


def test_half_precision(tmp_path):
    """The same action to within a bin where it was no toss-up; the golden pair knows the type."""
    policy_model(chunk=2).save(tmp_path / "policy")
    whole = vertebra.policy(tmp_path / "policy")
    write_golden(golden_pair(whole, seen(), TASK, "bridge"), tmp_path / "policy")
    half = vertebra.policy(tmp_path / "policy", dtype="bfloat16", golden="require")
    assert half.act(seen(), TASK, "bridge").dtype == np.float64
    report = check_golden(half, read_golden(tmp_path / "policy"))
    assert report.bound == 0.1
    assert "dtype: float32 became bfloat16" in report.changed


def test_robots_by_name():
    policy = Policy(policy_model())
    for bad in ([], ["a", "a"]):
        with pytest.raises(DataError):
            policy.act_many([seen()] * len(bad), "Go", "bridge", robots=bad)
    with pytest.raises(DataError, match="2 observations, 1 instructions"):
        policy.act_many([seen(), seen()], ["Go"], "bridge")
