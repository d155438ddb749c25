"""The documentation says what is so: tables are made from the code, blocks run, links and names exist."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from oblivio.audits.report import HTML, JSON, ROWS
from oblivio.cli.app import application
from oblivio.core.errors import BadInput
from oblivio.jobs import folder
from oblivio.jobs.job import Job
from oblivio.jobs.language.job import LanguageJob
from oblivio.jobs.language.sequence import TextRequests
from oblivio.jobs.sequence import Requests

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def generate():
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("generate")
    sys.path.remove(str(DOCS))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OBLIVIO_CACHE", str(tmp_path / "cache"))


def words(text):
    """A page without its numbers and the width of its columns, which differ from machine to machine."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d.,]*(e[+-]?\d+)?", "#", text))


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


# --- made from the code


@page
def test_tables_are_as_the_code_says(path, generate):
    assert generate.made(path.read_text()) == path.read_text(), "run: python docs/generate.py"


def test_every_table_has_its_place(generate):
    found = [name for path in PAGES for name in re.findall(r"<!-- made: ([\w-]+) -->", path.read_text())]
    import method_pages

    assert sorted(found) == sorted({**generate.PARTS, **generate.LATE, **method_pages.PARTS})


def test_claims_are_on_their_page(generate):
    from oblivio.claims import runner

    text = generate.on_page_markdown((DOCS / "claims.md").read_text())
    assert all(f"### {name}\n" in text for name in runner.table())


@pytest.mark.parametrize(
    "name", ["forget-a-class.md", "forget-a-person.md", "learn-new-classes.md", "write-a-method.md"]
)
def test_guides_run(name, generate, cache, monkeypatch):
    from oblivio import methods

    monkeypatch.setattr(methods.registry, "_own", {})
    text = (DOCS / name).read_text()
    assert words(generate.ran(text)) == words(text), "run: python docs/generate.py"


def test_readme_runs(generate, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    assert words(generate.called(text)) == words(text), "run: python docs/generate.py"
    generate.ran(text)
    assert (tmp_path / "runs" / "two" / "model" / "model.json").exists()


# --- jobs


def test_yaml_of_the_pages_is_of_a_job():
    whole = {"data": "digits", "model": "mlp", "forget": "class=3", "method": "salun"}
    for path in PAGES:
        for block in blocks(path, "yaml"):
            fields = yaml.safe_load(block)
            if fields.get("kind") == "language":
                assert (TextRequests if "requests" in fields else LanguageJob).of(**fields), path
            else:
                assert (Requests if "requests" in fields else Job).of(**{**whole, **fields}), path


def test_job_of_the_guide_is_that_of_the_example():
    (block,) = blocks(DOCS / "forget-a-class.md", "yaml")
    example = Job.load(ROOT / "examples" / "own_model" / "job.yaml")
    told = Job.of(**yaml.safe_load(block))
    assert told.data.but(valid=example.data.valid) == example.data
    assert (told.forget, told.method, told.recipe, told.references) == (
        example.forget, example.method, example.recipe, example.references,
    )  # fmt: skip


def test_errors_of_the_job_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(DOCS / "job-file.md", "text")
    wrong = [{"recipe": {"schedule": "cosin"}}, {"metod": "salun"}]
    for line, fields in zip(block.splitlines(), wrong, strict=True):
        job = yaml.safe_load(Job.example()) | fields
        Path("job.yaml").write_text(yaml.safe_dump(job))
        with pytest.raises(BadInput) as error:
            Job.load("job.yaml")
        assert line == f"oblivio: {error.value}"


def test_files_of_a_run_are_on_the_page():
    text = (DOCS / "runs.md").read_text()
    assert all(name in text for name in (folder.JOB, folder.LOG, HTML, JSON, ROWS, folder.MODEL, folder.WORK))


# --- names


@page
def test_commands_exist(path):
    app = application()
    known = {command.name: None for command in app.registered_commands}
    known |= {g.name: {c.name for c in g.typer_instance.registered_commands} for g in app.registered_groups}
    for name, second in re.findall(r"(?:^\$ |`)oblivio ([a-z]+) ?([a-z]*)", path.read_text(), re.MULTILINE):
        assert name in known, name
        assert known[name] is None or second in known[name], f"{name} {second}"


@page
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_names_of_the_api_exist():
    for name in re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(), re.MULTILINE):
        assert found(name), name


def found(name):
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            value = getattr(value, part)
        return value
    return None


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    assert [path.name for path in DOCS.glob("*.md") if f": {path.name}" not in text] == []


def test_the_programs_of_the_readme_are_installed():
    assert shutil.which("oblivio", path=Path(sys.executable).parent)
