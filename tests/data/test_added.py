"""Added tokens in conversations: text by default, tokens where a role is trusted, counted either way."""

from __future__ import annotations

import numpy as np
import pytest

from vertebra.backbone.registry import load_backbone
from vertebra.backbone.vocabulary import grow_to
from vertebra.data.encode.added import trusted_roles, uses, warn_unused
from vertebra.data.encode.chat import ChatEncoder
from vertebra.data.encode.encoders import TextEncoder
from vertebra.data.encode.prepare import prepare
from vertebra.data.look.report import check_data
from vertebra.data.model_facts import ModelFacts
from vertebra.errors import ConfigError, PromptError, UnknownNameError
from vertebra.tasks.chain import data_config
from vertebra.tasks.inspection import set_up
from vertebra.tasks.task import Job

ACT = "<ACT>"
ROWS = [
    {"messages": [{"role": "user", "content": f"Turn {way}."}, {"role": "assistant", "content": f"{way}{ACT}"}]}
    for way in ("left", "right", "back")
]
TYPED = [{"messages": [{"role": "user", "content": f"What is {ACT}?"}, {"role": "assistant", "content": "A mark."}]}]


def grown(name: str = "tiny-llama2"):
    backbone = load_backbone(name, inference_mode=True)
    grow_to(backbone, [ACT])
    return backbone, backbone.tokenizer.convert_tokens_to_ids(ACT)


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-qwen2.5", "tiny-gpt2"])
@pytest.mark.parametrize("trusted", [(), ("assistant",), ("gpt",), ("system",), ("all",), ("system", "assistant")])
def test_an_answer_holds_the_token_where_the_assistant_is_trusted(name, trusted):
    backbone, act = grown(name)
    table = prepare([*ROWS, *TYPED], ChatEncoder.of(backbone, trusted=trusted), cache=False)
    means = {"assistant", "gpt", "all"} & set(trusted)
    for index in range(len(ROWS)):
        sequence = table.sequence(index)
        held = np.flatnonzero(sequence.ids == act)
        assert len(held) == (1 if means else 0)
        assert (sequence.weight[held] == 1).all()
    assert act not in table.sequence(len(ROWS)).ids, "what a user types is text"
    slow = sum(int((table.sequence(index).ids == act).sum()) for index in range(len(table)))
    assert uses(table, [act])[act] == slow


def test_who_can_be_trusted():
    assert trusted_roles(()) == ()
    assert trusted_roles(("all",)) == trusted_roles(["assistant", "all"]) == ("assistant", "system", "tool")
    assert trusted_roles(["gpt"]) == ("assistant",)
    for wrong in (("user",), ("all", "user"), ("human",)):
        with pytest.raises(PromptError, match="user's text cannot be trusted"):
            trusted_roles(wrong)
    with pytest.raises(PromptError, match="Did you mean `assistant`"):
        trusted_roles(("asistant",))
    with pytest.raises(UnknownNameError, match="Did you mean `system`"):
        trusted_roles(("all", "sistem"))
    with pytest.raises(PromptError, match="a collection of roles"):
        trusted_roles("assistant")


def found(rows, *, tokens=(ACT,), **options):
    model = ModelFacts.find("tiny-llama2", tokens=tokens)
    return check_data(set_up(Job(data=data_config(rows, model, cache=False, **options), model=model)))


def test_the_check_counts_tokens_that_were_never_used():
    finding = found(ROWS).finding("added tokens")
    assert (finding.status, finding.value) == ("fail", "1 of 1")
    assert "assistant 3" in finding.places[0]
    assert "--trusted assistant" in finding.places[0]
    assert "data.trusted=[assistant]" in finding.places[0]
    good = found(ROWS, trusted=("assistant",)).finding("added tokens")
    assert (good.status, good.value, good.places) == ("pass", "0 of 1", ())
    assert f"`{ACT}` 3" in good.message
    typed = found([*ROWS, *TYPED], trusted=("assistant",)).finding("added tokens")
    assert (typed.status, typed.value) == ("note", "0 of 1")
    assert "(user 1)" in typed.places[0]
    assert "--trusted" not in typed.places[0]
    absent = found(TYPED[:0] + ROWS, tokens=("<GO>",)).finding("added tokens")
    assert (absent.status, absent.places) == ("note", ("`<GO>` is nowhere in this data",))
    spelled = found([{"messages": [*ROWS[0]["messages"][:1], {"role": "assistant", "content": "a </s> b"}]}], tokens=())
    assert spelled.finding("added tokens").status == "note"
    assert all(finding.name != "added tokens" for finding in found(ROWS, tokens=()).findings)


def test_tokens_that_nothing_uses_are_reported_to_a_run(caplog):
    backbone, _ = grown()
    for trusted, warned in (((), True), (("assistant",), False)):
        table = prepare(ROWS, ChatEncoder.of(backbone, trusted=trusted), cache=False)
        caplog.clear()
        warn_unused(table, backbone.tokenizer, [ACT], conversations=True)
        assert ("model.tokens: `<ACT>` is in none of the 3 samples" in caplog.text) == warned
        assert ("data.trusted=[assistant]" in caplog.text) == warned
    caplog.clear()
    warn_unused(
        prepare(["x <ACT>"], TextEncoder(backbone.tokenizer), cache=False),
        backbone.tokenizer,
        [ACT],
        conversations=False,
    )
    assert "Plain text never holds added tokens" in caplog.text


def test_what_has_no_speakers():
    with pytest.raises(ConfigError, match="trusted: of kind `chat` alone"):
        found([{"text": "some text"}], trusted=("assistant",))
    with pytest.raises(ConfigError, match="is an encoder"):
        ModelFacts.find("tiny-bert", tokens=(ACT,))
