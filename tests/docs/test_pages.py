"""The pages run: Python examples, command lines, links, the keys of the schema, results that are cheap to repeat."""

import doctest
import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from trilemma.catalogue.economics import Economics
from trilemma.cli.frame import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTED_ELSEWHERE = {"cost.md"}
CHEAP = ("trilemma workload", "trilemma catalogue")


def name_of(path):
    return str(path.relative_to(ROOT))


def text_of(path):
    return path.read_text(encoding="utf-8")


def fenced(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


EXAMPLES = [p for p in PAGES if ">>> " in text_of(p) and p.name not in TESTED_ELSEWHERE]


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_the_python_examples_run(path, tmp_path):
    blocks = fenced(text_of(path), "toml")
    globs = {"folder": tmp_path, "block": lambda language, number: blocks[number - 1]}
    result = doctest.testfile(str(path), module_relative=False, globs=globs, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def commands_in(text):
    """Every command line of the page: in console blocks, in output comments, and in code spans."""
    lines = [line[2:] for block in fenced(text, "console") for line in block.splitlines() if line.startswith("$ ")]
    lines += re.findall(r"<!-- output of: (trilemma [^|\n]*?) *(?:\|[^\n]*)?-->", text)
    lines += re.findall(r"`(trilemma (?:plan|predict|simulate|cost|workload|catalogue|doctor)\b[^`|]*)`", text)
    return [line.removeprefix(".venv/bin/") for line in lines]


COMMANDS = [(path, line) for path in PAGES for line in dict.fromkeys(commands_in(text_of(path)))]


@pytest.mark.parametrize(("path", "line"), COMMANDS)
def test_the_command_lines_parse(path, line):
    program, *words = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{words[0]}:", text_of(ROOT / "Makefile"), re.MULTILINE)
        return
    assert program == "trilemma", line
    for word in words:
        if word.startswith(("examples/", "benchmarks/")):
            assert (ROOT / word).is_file(), word
    group = typer.main.get_command(app)
    if words[0] in group.commands and len(words) == 1:
        return  # a command's bare name in running text
    while hasattr(group, "commands"):
        assert words[0] in group.commands, line
        group, words = group.commands[words[0]], words[1:]
    group.make_context(line, words)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", text_of(path), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{name_of(path)}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", text_of(there), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target


def test_the_index_lists_every_page():
    index, decisions = text_of(ROOT / "docs" / "README.md"), text_of(ROOT / "docs" / "decisions" / "README.md")
    for path in (ROOT / "docs" / "guide").glob("*.md"):
        assert f"(guide/{path.name})" in index
    for path in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert f"({path.name})" in decisions


def schema_keys():
    schema = json.loads(text_of(ROOT / "docs" / "scenario.schema.json"))
    for part in (schema, *schema["$defs"].values()):
        yield from part.get("properties", {})


@pytest.mark.parametrize("key", sorted(set(schema_keys())))
def test_the_scenario_page_knows_every_key(key):
    assert re.search(rf"`(?:[\w*]+\.)*{key}`", text_of(ROOT / "docs" / "guide" / "scenario.md")), key


def test_the_scenario_page_explains_every_rate():
    page = text_of(ROOT / "docs" / "guide" / "scenario.md")
    for field in fields(Economics):
        if field.name != "figures":
            assert f"| `{field.name}` |" in page, field.name


def test_the_examples_of_scenarios_are_scenarios(tmp_path):
    import yaml

    from trilemma.scenario import scenario_from

    whole = {"version": 1, "name": "example", "model": "llama-3.1-8b", "workload": {"trace": "azure_2023_conv"}}
    seen = 0
    for path in PAGES:
        for block in fenced(text_of(path), "yaml"):
            scenario_from(whole | yaml.safe_load(block), folder=tmp_path, where=name_of(path))
            seen += 1
    assert seen >= 3


def blocks(refresh):
    for path in refresh.pages():
        for match in refresh.BLOCK.finditer(text_of(path)):
            yield path, match["what"], match["body"]


def test_no_printed_result_is_empty(refresh):
    for path, what, body in blocks(refresh):
        assert len(body.splitlines()) >= 3, f"{name_of(path)}: {what}: run python benchmarks/refresh_readme.py"


def test_cheap_results_are_what_the_commands_print_today(refresh, monkeypatch, capsys):
    from trilemma.cli.frame import run

    monkeypatch.chdir(ROOT)

    def here(command):
        assert run(shlex.split(command)[1:]) == 0
        return capsys.readouterr().out.rstrip("\n")

    monkeypatch.setattr(refresh, "printed", here)
    seen = 0
    for path, what, body in blocks(refresh):
        if what == "accuracy" or what.startswith(CHEAP):
            assert body == refresh.block(what), f"{name_of(path)}: {what}: run python benchmarks/refresh_readme.py"
            seen += 1
    assert seen >= 4


def test_the_same_command_shows_the_same_result_on_every_page(refresh, demo):
    for path, what, body in blocks(refresh):
        if what.startswith("trilemma plan examples/chat-70b.yaml | "):
            wanted = what.partition(" | ")[2]
            assert body == f"```text\n{refresh.part(demo.rstrip(), wanted)}\n```\n", f"{name_of(path)}: {what}"


def test_notice_credits_the_shipped_traces():
    from trilemma.workload.traces import SHIPPED

    notice = text_of(ROOT / "NOTICE")
    for trace in SHIPPED.values():
        assert trace.file in notice
        assert trace.licence in notice
    for path in (ROOT / "benchmarks" / "data").glob("*.gz"):
        assert path.name in notice
