"""Every command in the documents: its options are those of the command line, and it does what the page shows.

Plain `tox` runs all but what a page marks as slow, in processes forked from one that has the libraries. `tox -e docs`
(SPARSEBENCH_DOCS=all) runs the slow ones too, each command in a new process. What cannot run on a test machine is
marked `not run` with a reason; COUNTED lists all marks, so that neither list grows unseen.
"""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from harness.cli import app
from harness.study import parse_study
from sparsify.recipe import parse_recipe

HERE = Path(__file__).parent
docs = SimpleNamespace(**runpy.run_path(str(HERE / "doc_blocks.py")))
world_kit = SimpleNamespace(**runpy.run_path(str(HERE / "doc_world.py")))
ROOT = docs.ROOT
ALL = os.environ.get("SPARSEBENCH_DOCS") == "all"
PAGES = docs.pages()
COMMAND: Any = typer.main.get_command(app)
TUTORIAL = ROOT / "docs" / "tutorial" / "first-study.md"
OTHERS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "sparsify" / "README.md",
    *sorted((ROOT / "results").glob("*.md")),
]
CALLS = [
    (block, command)
    for page in [*PAGES, *OTHERS]
    for block in docs.blocks(page)
    if block.language == "sh"
    for command in block.commands()
]

# Page -> blocks of commands that are not carried out, and blocks that only `tox -e docs` carries out.
COUNTED = {
    "how-to/add-a-solver.md": (1, 0),
    "how-to/add-a-suite.md": (1, 0),
    "how-to/add-an-engine.md": (2, 1),
    "how-to/compress-and-prove.md": (1, 3),
    "how-to/evaluate-an-endpoint.md": (1, 0),
    "how-to/gate-in-ci.md": (2, 0),
    "how-to/judge-conversations.md": (1, 0),
    "how-to/reproduce-the-papers.md": (1, 2),
    "how-to/run-on-a-cluster.md": (4, 0),
    "how-to/score-outputs.md": (1, 0),
    "tutorial/first-study.md": (2, 2),
}


def test_blocks_that_are_not_run_are_counted() -> None:
    found: dict[str, tuple[int, int]] = {}
    for page in PAGES:
        shell = [block for block in docs.blocks(page) if block.language == "sh"]
        marks = tuple(sum(mark in block.said for block in shell) for mark in ("not run", "slow"))
        if any(marks):
            found[page.relative_to(ROOT / "docs").as_posix()] = marks
        for block in shell:
            for mark in ("not run", "slow"):
                assert block.said.get(mark, "a reason"), f"{block.where}: `{mark}` needs a reason"
    assert found == COUNTED


def click_command(arguments: list[str]) -> None:
    """Parse a call as the command line does, without carrying it out.

    Raises what the command line would: an unknown verb or option, a missing argument, a value of another type.
    """
    command: Any = COMMAND
    name = "sparsebench"
    rest = list(arguments)
    while hasattr(command, "commands"):
        context = command.make_context(name, rest)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, rest)


@pytest.mark.parametrize(("block", "command"), CALLS, ids=[f"{b.where}-{i}" for i, (b, _) in enumerate(CALLS)])
def test_commands_name_real_verbs_and_options(block: Any, command: str) -> None:
    for arguments in docs.sparsebench_calls(command):
        try:
            click_command(arguments)
        except Exception as error:  # of click, or of the click inside typer
            said = error.format_message() if hasattr(error, "format_message") else repr(error)
            pytest.fail(f"{block.where}: `{command}`: {said}")
    for module in re.findall(r"(?:^|\s)-m ((?:harness|sparsify|suites)[\w.]*)", command):
        assert importlib.util.find_spec(module), f"{block.where}: no module {module}"
    tox = (ROOT / "tox.ini").read_text()
    for name in re.findall(r"\btox -e (\w+)", command):
        assert f"[testenv:{name}]" in tox, f"{block.where}: tox has no environment {name}"
    project = (ROOT / "pyproject.toml").read_text()
    for extras in re.findall(r"pip install .*\[([\w,]+)\]", command):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"{block.where}: no extra {extra}"


def test_a_wrong_option_would_be_found() -> None:
    click_command(["bench", "pocket", "--out", "x"])
    for wrong in (["run", "--dryrun"], ["bench", "serve", "--rat", "1"], ["nonsense"], ["eval", "pocket"], ["eval"]):
        with pytest.raises(Exception, match=r".") as caught:
            click_command(wrong)
        assert hasattr(caught.value, "format_message"), wrong


def test_study_and_recipe_files_of_the_pages_are_valid() -> None:
    import yaml

    known = 0
    for page in [*PAGES, *OTHERS]:
        for block in docs.blocks(page):
            data = yaml.safe_load(block.text) if block.language == "yaml" else None
            if isinstance(data, dict) and "variants" in data:
                known += 1
                parse_study({"name": "page", **data}, where=block.where)
            elif isinstance(data, dict) and "stages" in data:
                known += 1
                parse_recipe(data, name="page", where=block.where)
    assert known >= 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made = world_kit.World(tmp_path_factory.mktemp("docs"), warm=not ALL)
    yield made
    made.close()


def test_the_marks_of_a_page_are_read(tmp_path: Path) -> None:
    page = ROOT / "docs" / "how-to" / "gate-in-ci.md"
    shell = [block for block in docs.blocks(page) if block.language == "sh"]
    assert [block.said.get("exit") for block in shell] == ["1", "0", None, None, None, None]
    assert "not run" in shell[3].said and docs.prepared(page) == ("first-study",)
    assert docs.occurs("a 1.5 b\n...\nc", "x\na 22 b\ny\nc", numbers_vary=True) is None
    assert docs.occurs("a 1.5 b", "a 22 b", numbers_vary=False) == "a 1.5 b"
    assert docs.occurs("b\na", "a\nb", numbers_vary=False) == "a"
    assert list(docs.sparsebench_calls("A=1 .venv/bin/sparsebench run x | head && sparsebench gate y > z")) == [
        ["run", "x"],
        ["gate", "y"],
    ]


def carry_out(world: Any, page: Path, folder: Path) -> int:
    """Write the page's files and run its blocks in order; how many blocks ran."""
    world.prepare(docs.prepared(page), folder)
    printed, ran = "", 0
    for block in docs.blocks(page):
        if block.file is not None:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text + "\n", encoding="utf-8")
        elif block.language == "sh":
            printed = None
            if "not run" in block.said or ("slow" in block.said and not ALL):
                continue
            done = world.run(block.text, folder)
            wanted = int(block.said.get("exit", "0"))
            assert done.returncode == wanted, (
                f"{block.where}: exit {done.returncode}, not {wanted}:\n{done.stdout[-3000:]}"
            )
            printed, ran = done.stdout, ran + 1
        elif block.is_output and printed is not None:
            missing = docs.occurs(block.text, printed, numbers_vary="numbers vary" in block.said)
            assert missing is None, f"{block.where}: nothing like `{missing}` in:\n{printed[-3000:]}"
    return ran


@pytest.fixture(scope="module")
def first_study(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial, carried out; other pages go on from what it leaves."""
    folder: Path = tmp_path_factory.mktemp("first-study")
    assert carry_out(world, TUTORIAL, folder) >= 5
    world.keep_first_study(folder)
    return folder


def test_the_tutorial_does_what_it_shows(first_study: Path) -> None:
    assert (first_study / "out" / "first" / "recovery.md").is_file()


RUNNABLE = [
    page
    for page in PAGES
    if page != TUTORIAL
    and any(b.language == "sh" and "not run" not in b.said and (ALL or "slow" not in b.said) for b in docs.blocks(page))
]


@pytest.mark.parametrize("page", RUNNABLE, ids=[page.stem for page in RUNNABLE])
def test_a_page_does_what_it_shows(page: Path, world: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if "first-study" in docs.prepared(page):
        request.getfixturevalue("first_study")
    assert carry_out(world, page, tmp_path) > 0
