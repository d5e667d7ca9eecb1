"""Hostile chat templates: refused by name, stopped at a limit, and never with a way to files or to secrets."""

import shutil
import subprocess
import sys
from pathlib import Path

import poison
import pytest
import tiny_gemma

from potstill import contents, manifest, untrusted
from potstill.files import sha256_text


@pytest.fixture
def package(exported: Path, tmp_path: Path) -> Path:
    return poison.copy_of(exported, tmp_path)


TEMPLATES: dict[str, tuple[str, str]] = {
    "__class__": ("{{ ''.__class__.__mro__ }}", "asks for '__"),
    "__class__ where nothing goes": ("{% if false %}{{ x.__class__ }}{% endif %}U", "asks for '__class__'"),
    "__class__ as text": ("{{ messages|map(attribute='__class__')|list }}", "asks for '__class__'"),
    "__class__ in two halves": ("{{ ''['__cla' + 'ss__'] }}", "asks for '__class__'"),
    "__class__ by format": ("{{ '{0.__class__}'.format(messages) }}", "asks for '__class__'"),
    "globals of Jinja": ("{{ cycler.__init__.__globals__.os.mkdir('MARKER') }}", "asks for '__"),
    "attr": ("{{ lipsum|attr('__glob' ~ 'als__') }}", "asks for attributes by a computed name"),
    "a private name": ("{{ self._TemplateReference__context }}", "asks for '_TemplateReference__context'"),
    "include": ("{% include '/etc/passwd' %}", "loads another file"),
    "import": ("{% import 'os' as os %}", "loads another file"),
    "a change of the messages": ("{{ messages.append({}) }}", "asks for 'append'"),
    "10^9 rounds": ("{% for i in range(10**9) %}x{% endfor %}", "needs more memory or depth"),
    "rounds in rounds": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "takes more",
    ),
    "10^9 digits": ("{{ 9**(10**9) }}", "takes more than"),
    "10^10 letters": ("{{ 'a' * 10**10 }}", "needs more memory or depth"),
    "10^6 letters": ("{{ 'a' * 10**6 }}", "makes more than 100000 characters"),
    "a wide number": ("{{ '%999999999999d' % 1 }}", "needs more memory or depth"),
    "a macro without end": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "needs more memory or depth"),
    "brackets without end": ("{{ " + "(" * 50_000, "needs more memory or depth"),
    "no Jinja": ("{{ (", "does not render"),
    "refuses all": (
        "{{ raise_exception('no' ~ '\\x1b' ~ '[2J') }}",
        "its chat template refuses a plain conversation: no\\x1b",
    ),
    "an unknown function": ("{{ run(messages) }}", "does not render: 'run' is undefined"),
    "another prompt each day": ("{{ strftime_now('%d') }}", "does not render: 'strftime_now' is undefined"),
    "drops the question": ("{{ bos_token }}answer as you like", "loses the user's text"),
    "drops the system text": ("{{ messages[-1]['content'] }}", "loses the system's text"),
}


@pytest.mark.parametrize("what", TEMPLATES)
def test_a_hostile_template_is_refused_and_stopped(package: Path, tmp_path: Path, what: str) -> None:
    template, said = TEMPLATES[what]
    template = template.replace("MARKER", str(tmp_path / "marker"))
    for folder in package.glob("gguf-*"):
        shutil.rmtree(folder)
    (package / "bf16/chat_template.jinja").write_text(template)
    poison.refit(package, chat_template_sha256=sha256_text(template))
    found = "\n".join(str(problem) for problem in manifest.verify(package))
    assert found.startswith("bf16/chat_template.jinja: ")
    assert said in found
    assert not (tmp_path / "marker").exists()


def test_what_judges_a_template_gets_no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tell = tmp_path / "tell.py"
    tell.write_text("import json, os; print(json.dumps({'problem': ' '.join(os.environ), 'texts': []}))")
    monkeypatch.setattr(untrusted, "__file__", str(tell))
    monkeypatch.setenv("POTSTILL_SECRET", "hush")
    said = contents.template_problem("{{ x }}", with_system=False)
    assert said is not None
    assert "SECRET" not in said
    assert "PATH" not in said.replace("LD_LIBRARY_PATH", "")


def test_what_judges_a_template_opens_no_file(tmp_path: Path) -> None:
    code = (
        "import os, runpy, sys\n"
        f"runpy.run_path({untrusted.__file__!r})['limit']()\n"
        "for work in (lambda: open('/etc/hostname'), lambda: open(sys.argv[1], 'w'), os.pipe):\n"
        "    try: work(); print('opened')\n"
        "    except OSError: print('refused')\n"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "marker")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["refused"] * 3, done.stderr


def test_templates_that_people_use_are_let_pass() -> None:
    nano = Path(__file__).resolve().parents[2] / "models/nano/chat_template.jinja"
    marked = "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
    breaks = "{% for m in messages %}{{ m.content }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    tools = "{% if tools %}{{ tools|tojson(indent=2) }}{% endif %}{{ messages|tojson }}"
    for template in (nano.read_text(), tiny_gemma.CHAT_TEMPLATE, marked, breaks, tools):
        assert contents.template_problem(template, with_system=True) is None, template
