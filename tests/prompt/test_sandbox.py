"""Templates within a budget: transformers' own text for real ones, and an early end for all others."""

from __future__ import annotations

import tracemalloc

import jinja2
import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tests.fuzz.templates import HOSTILE
from vertebra.backbone.tiny import TINY, tiny_checkpoint
from vertebra.errors import PromptError
from vertebra.prompt.sandbox import rendered

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is 'it' <now>?\n\tIn Größe 数据 🙂 {x} %s"},
    {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nThere."},
    {"role": "user", "content": ""},
]
VARIABLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "add_generation_prompt": True,
    "tools": None,
    "documents": None,
    "enable_thinking": False,
}
ORDINARY = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + ']' }}{{ m['content'] | trim }}{{ eos_token }}{% endfor %}",
    "{% for m in messages %}{{ loop.index0 ~ '/' ~ loop.length ~ m.content }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{% else %}none{% endfor %}",
    "{% set ns = namespace(last=-1, text='') %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% set ns.text = ns.text ~ m.role %}{% endfor %}{{ ns.last }}{{ ns.text }}",
    "{% macro show(m, mark='*') %}{{ mark * 3 }}{{ m.content }}{% endmacro %}{% for m in messages %}{{ show(m) }}{% endfor %}",
    "{% for m in messages[1:] %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endfor %}{{ messages[::-1][0].role }}",
    "{% for m in messages %}{% if m.role in ['user', 'tool'] %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
    "{% for m in messages %}{% generation %}{% set x = 1 %}{{ m.content }}{% endgeneration %}{{ x is defined }}{% endfor %}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ {'a': [1, 2.5, none, true]} | tojson(sort_keys=true) }}",
    "{{ messages | map(attribute='role') | join(', ') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | list }}{{ messages | first }}",
    "{{ ', '.join(['a', 'b']) }}{{ 'a-b'.replace('-', '+') }}{{ 'x' | upper }}"
    "{{ '%s of %d' % ('a', 3) }}{{ '{} {}'.format(1, 2) }}",
    "{{ messages[0].content | indent(4) }}{{ 'a\\nb' | indent }}{{ 'abc' | center(9) }}{{ ['b', 'a'] | sort | unique | list }}",
    "{% set t %}{% for m in messages %}{{ m.role }};{% endfor %}{% endset %}{{ t | length }}{{ t[:-1] }}{{ t | string }}",
    "{% if messages[0].role == 'system' and messages | length > 1 %}{{ 1 + 2 * 3 - 4 // 3 % 5 ** 1 }}"
    "{{ 7 / 2 }}{{ -3 }}{% endif %}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }}{% endfor %}{{ messages[0] | dictsort }}{{ dict(a=1) }}",
    "{% for x in range(3) %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x) }}{% endfor %}{{ (1, 2) }}"
    "{{ [1] + [2] }}{{ 'a' in 'ab' }}",
    "{% for x in [[1, [2]], [3]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "{{ messages[9] is defined }}{{ absent }}{{ absent | default('d') }}"
    "{{ absent is none }}{{ 12345678 | string }}{{ 1 < 2 < 3 }}",
    "{% filter upper %}{{ messages[0].content }}{% endfilter %}"
    "{% call(x) m2() %}{{ x }}{% endcall %}{% macro m2() %}{% endmacro %}",
    "{%- for m in messages -%}\n  {{- m.content -}}\n  {% if true %}\n x\n  {% endif %}\n{%- endfor -%}",
    "{{ messages | batch(2) | list }}{{ messages | slice(2) | list }}"
    "{{ [1, 2] | sum }}{{ 'a b' | wordwrap(1) }}{{ 'x' | replace('x', 'y') }}",
)  # fmt: skip


def plainly(source: str) -> str:
    """The slow plain twin: transformers' own."""
    return render_jinja_template([TALK], chat_template=source, **VARIABLES)[0][0]


@pytest.mark.parametrize("source", ORDINARY)
def test_ordinary_templates_give_the_text_of_transformers(source: str):
    try:
        expected = plainly(source)
    except jinja2.TemplateError as error:
        with pytest.raises(jinja2.TemplateError, match=str(error)[:20]):
            rendered(source, TALK, VARIABLES)
        return
    assert rendered(source, TALK, VARIABLES) == expected


def test_templates_of_every_family_give_the_text_of_transformers():
    seen = 0
    for name in TINY:
        file = tiny_checkpoint(name) / "chat_template.jinja"
        for talk in (TALK[:1] + TALK[1:2], TALK[1:3]) if file.is_file() else ():
            try:
                expected = render_jinja_template([talk], chat_template=file.read_text(), **VARIABLES)[0][0]
            except jinja2.TemplateError:
                continue  # Gemma has no system turn
            assert rendered(file.read_text(), talk, VARIABLES) == expected
            seen += 1
    assert seen > 10


@pytest.mark.parametrize("source", HOSTILE, ids=[f"{number}-{text[:30]!r}" for number, text in enumerate(HOSTILE)])
def test_hostile_templates_end_soon_and_take_little(source: str):
    """The first limit that is met is a count, so that this takes the same steps on any machine."""
    tracemalloc.start()
    try:
        rendered(source, TALK, VARIABLES)
    except (PromptError, jinja2.TemplateError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200 * 2**20


def test_a_long_conversation_is_no_hostile_one():
    talk = [TALK[1], TALK[2]] * 2000
    for source in ORDINARY[:7]:
        rendered(source, talk, VARIABLES)


def test_what_stops_a_template_is_reported():
    with pytest.raises(PromptError, match="is stopped: it makes 1e"):
        rendered("{{ 'a' * 10 ** 10 }}", TALK, VARIABLES)
    with pytest.raises(PromptError, match="is stopped: it takes more steps"):
        rendered("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", TALK, VARIABLES)
    with pytest.raises(PromptError, match=r"cannot be run .*division by zero"):
        rendered("{{ 1 / 0 }}", TALK, VARIABLES)
    with pytest.raises(PromptError, match="nested too deeply"):
        rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", TALK, VARIABLES)
