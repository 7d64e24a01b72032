"""OpenAI's own client against a language model and one that sees: whole, as it comes, by a schema, with an image."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from tests.model.models import build
from tests.policies.models import image
from tests.serve.serving import asked
from vertebra import load
from vertebra.decode.call import generate
from vertebra.serve import Server, ServeSettings

openai = pytest.importorskip("openai")
FETCHED = [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]
ASKED = [{"role": "user", "content": "Where is the cup?"}]


@pytest.fixture(scope="module")
def model():
    return load("tiny-llama2")


@pytest.fixture(scope="module")
def server(model):
    with Server(model, ServeSettings(port=0)) as one:
        yield one


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as one:
        yield one.chat.completions


def test_an_answer_is_that_of_the_model(client, model):
    expected = generate(model, ASKED, max_new_tokens=6)
    messages = client.create(model="any", messages=ASKED, max_tokens=6)
    assert messages.choices[0].message.content == expected.text[0]
    assert (messages.usage.prompt_tokens, messages.usage.completion_tokens) == (
        expected.prompt_length,
        expected.lengths[0],
    )
    assert messages.choices[0].finish_reason in ("length", "stop")


def test_an_answer_as_it_comes(client, model):
    expected = generate(model, ASKED, max_new_tokens=6)
    chunks = list(
        client.create(model="any", messages=ASKED, max_tokens=6, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected.text[0]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 6


def test_several_drawn_answers(client, model):
    expected = generate(model, ASKED, max_new_tokens=4, num_return_sequences=3, temperature=0.9, seed=5)
    messages = client.create(model="any", messages=ASKED, max_tokens=4, n=3, temperature=0.9, seed=5)
    assert [one.message.content for one in messages.choices] == expected.text


def test_a_schema_holds(client):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object", "properties": {"open": {"type": "boolean"}}, "required": ["open"], "additionalProperties": False,
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "door", "schema": schema}}
    messages = client.create(model="any", messages=ASKED, max_tokens=40, response_format=form)
    assert isinstance(json.loads(messages.choices[0].message.content)["open"], bool)
    assert messages.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "a"}]}, "nobody"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": -5}, "max_tokens is -5; expected"),
        ({"stop": ["a", ""]}, "stop is .*; expected text"),
        ({"n": 0}, "n is 0; expected"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "not offered"),
        ({"presence_penalty": 1}, "not offered"),
        ({"extra_body": {"max_tokns": 3}}, "Did you mean `max_tokens`"),
        ({"n": 2, "stream": True}, "not streamed"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"messages": [{"role": "user", "content": FETCHED}]}, "data URL"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named(client, changes, words):
    given = {"model": "any", "messages": ASKED, "max_tokens": 3, **changes}
    with pytest.raises(openai.BadRequestError, match=words):
        client.create(**given)


def test_an_image_as_a_data_url():
    model = build().eval()
    file = io.BytesIO()
    Image.fromarray(image(0)).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    turns = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image"}]}]
    expected = generate(model, turns, max_new_tokens=5, images=[file.getvalue()])
    with Server(model, ServeSettings(port=0)) as one:
        body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 5}
        status, answer, _ = asked(one.url + "/v1/chat/completions", body)
    assert status == 200, answer
    assert answer["choices"][0]["message"]["content"] == expected.text[0]


def test_models_are_listed(server):
    _, answer, _ = asked(server.url + "/v1/models")
    assert [one["object"] for one in answer["data"]] == ["model"]
    assert asked(server.url + "/act", b"{}")[0] == 400
