"""The documents against the program: commands, flags, columns, settings, links and examples are what they say."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml

import cli
from imtalker.avatars import STATE_RANGES
from imtalker.checkpoints import save_generator, save_renderer
from imtalker.presets import PRESETS, build_seeded
from jobs.schema import Job, RayOptions, RuntimeEnv, parse_job
from manifests.schema import BY_NAME
from pipeline.avatars.states import STATES_SCHEMA
from pipeline.avatars.tables import CLIPS_SCHEMA
from pipeline.config import (
    CacheSettings,
    InputLimits,
    RenderResources,
    Resources,
    RetrySettings,
    RunSettings,
    SigningSettings,
    VideoSettings,
)
from pipeline.errors import ErrorKind
from pipeline.ledger import Record
from pipeline.metrics.catalogue import METRICS
from pipeline.metrics.gates import DEFAULTS
from pipeline.records.row import RESULTS_SCHEMA
from pipeline.training.audio import AudioSettings
from pipeline.training.settings import (
    AvatarSettings,
    BasicSettings,
    DropoutSettings,
    GeneratorSettings,
    LossWeights,
    RendererSettings,
    TrainingSettings,
    load_settings,
)
from pipeline.weights import parts_of

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
YAMLS = [ROOT / "ray_cluster.yaml", *sorted((ROOT / "jobs").glob("*.yaml"))]
PROGRAM = typer.main.get_command(cli.app)

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return [body for name, body in FENCED.findall(read(path)) if name == language]


def prose(path: Path) -> str:
    return FENCED.sub("", read(path))


def section(path: Path, heading: str) -> str:
    """The text under a heading, up to the next heading of any level."""
    _, found, rest = read(path).partition(f"# {heading}\n")
    assert found, f"{path.name} has no section {heading!r}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """Names in backticks in the first cell of every table row; a cell may hold several."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in rows for name in INLINE.findall(cell)]


def commands(text: str, program: str) -> Iterator[list[str]]:
    """Arguments of every line of ``text`` that calls ``program``; remarks after # or three spaces are cut off."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(re.split(r"\s{3,}", line.strip())[0], comments=True)
        if words and words[0].removeprefix(".venv/bin/") == program:
            yield words[1:]


def written_commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for block in blocks(page, "bash"):
            yield from ((page.name, arguments) for arguments in commands(block, "imtalker"))
    for file in YAMLS:
        uncommented = re.sub(r"^\s*[#-] *", "", read(file), flags=re.MULTILINE)
        found = (line for line in uncommented.replace("\\\n", " ").splitlines() if line.startswith("imtalker "))
        yield from ((file.name, arguments) for line in found for arguments in commands(line, "imtalker"))


def find(arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that leading words name, and the words after them."""
    command: Any = PROGRAM
    while arguments and arguments[0] in getattr(command, "commands", {}):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, inner in command.commands.items():
        yield from leaves(inner, f"{name} {word}".strip())


def flags(command: Any) -> set[str]:
    return {"--help", *(flag for param in command.params for flag in (*param.opts, *param.secondary_opts))}


@pytest.mark.parametrize(
    ("page", "arguments"), [pytest.param(p, a, id=f"{p}: {' '.join(a)}") for p, a in written_commands()]
)
def test_written_commands_parse(page: str, arguments: list[str]) -> None:
    command, rest = find(arguments)
    assert not hasattr(command, "commands"), f"{page}: imtalker {' '.join(arguments)} names no command"
    command.make_context(command.name, list(rest))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_named_in_the_text_exist(page: Path) -> None:
    every = set().union(*(flags(command) for _, command in leaves(PROGRAM)))
    for code in INLINE.findall(prose(page)):
        words = code.split()
        if words[0] == "imtalker" and len(words) > 1:
            command, rest = find(words[1:])
            assert command is not PROGRAM, f"`{code}` names no command"
            known = flags(command)
        elif words[0].startswith("--"):
            rest, known = words, every
        else:
            continue
        assert {word for word in rest if word.startswith("--")} <= known, f"`{code}`"


def test_every_command_is_shown() -> None:
    shown = [find(arguments)[0] for _, arguments in written_commands()]
    assert [name for name, command in leaves(PROGRAM) if command not in shown] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    text = "\n".join([*blocks(page, "bash"), *INLINE.findall(prose(page))])
    assert {arguments[0] for arguments in commands(text, "make")} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", read(file), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_results_columns_and_their_types() -> None:
    text = section(ROOT / "docs" / "results.md", "Columns of results.parquet")
    text += section(ROOT / "docs" / "metrics.md", "Columns of metrics")
    documented = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, re.MULTILINE)
    types = {field.name: re.sub(r"<\w+: ", "<", str(field.type)) for field in RESULTS_SCHEMA}
    assert documented == list(types.items())


def test_metrics_and_default_gates() -> None:
    rows = [line.split("|")[1:-1] for line in read(ROOT / "docs" / "metrics.md").splitlines() if line.startswith("| `")]
    words = {"lower": "lower", "higher": "higher", "zero": "0", "one": "1", "": ""}
    units = {cells[0].strip(" `"): (cells[2].strip(), cells[3].strip()) for cells in rows if len(cells) == 5}
    assert units == {metric.name: (metric.unit, words[metric.better]) for metric in METRICS}
    bounds = {cells[0].strip(" `"): [cell.strip() for cell in cells[1:3]] for cells in rows if len(cells) == 4}
    said = {name: ["" if x is None else f"{x:g}" for x in (gate.min, gate.max)] for name, gate in DEFAULTS.items()}
    assert bounds == said


def test_record_fields() -> None:
    assert first_cells(section(ROOT / "docs" / "results.md", "Records")) == list(Record.model_fields)


def test_error_kinds() -> None:
    assert first_cells(section(ROOT / "docs" / "results.md", "Kinds of error")) == list(get_args(ErrorKind))


def test_manifest_columns() -> None:
    assert first_cells(section(ROOT / "docs" / "manifests.md", "Columns")) == list(BY_NAME)


def test_keys_of_a_job_file() -> None:
    plain = [name for name in Job.model_fields if name != "ray"]
    options = [f"ray.{name}" for name in RayOptions.model_fields if name != "runtime_env"]
    environment = [f"ray.runtime_env.{name}" for name in RuntimeEnv.model_fields]
    documented = first_cells(section(ROOT / "docs" / "jobs.md", "Job files"))
    assert sorted(documented) == sorted([*plain, *options, *environment])


def test_settings_and_their_defaults() -> None:
    text = section(ROOT / "docs" / "jobs.md", "Settings")
    models = (RunSettings, VideoSettings, SigningSettings, InputLimits, RetrySettings, CacheSettings)
    assert first_cells(text) == [name for model in models for name in model.model_fields]
    for name in (*Resources.model_fields, *RenderResources.model_fields):
        assert f"`{name}`" in text
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    for line in (line for line in text.splitlines() if line.startswith("| `")):
        _, names, default, *_ = line.split("|")
        given = default.split(",") if default.strip() else []
        for name, value in zip(INLINE.findall(names), given, strict=bool(given)):
            assert yaml.safe_load(value) == fields[name].default, name


def test_settings_of_trainings_and_their_defaults() -> None:
    page = ROOT / "docs" / "training.md"
    renderer, generator, shared = (
        RendererSettings.model_fields,
        GeneratorSettings.model_fields,
        TrainingSettings.model_fields,
    )
    assert first_cells(section(page, "Of both trainings")) == list(shared)
    of_renderer, of_generator = section(page, "Of the renderer"), section(page, "Of the generator")
    assert first_cells(of_renderer) == [
        *(name for name in renderer if name not in shared),
        *AvatarSettings.model_fields,
    ]
    assert first_cells(of_generator) == [
        *(name for name in generator if name not in shared),
        *DropoutSettings.model_fields,
    ]
    assert first_cells(section(page, "Losses")) == list(LossWeights.model_fields)
    parts = (AvatarSettings.model_fields, DropoutSettings.model_fields, LossWeights.model_fields)
    fields = {name: field for model in (generator, *parts, renderer) for name, field in model.items()}
    of_audio = section(page, "Audio encoder")
    assert set(first_cells(of_audio)) == {
        name
        for name, field in AudioSettings.model_fields.items()
        if name not in BasicSettings.model_fields or field.default != BasicSettings.model_fields[name].default
    }
    for line in (line for line in read(page).splitlines() if line.startswith("| `")):
        _, name, default, *_ = line.split("|")
        if default.strip():
            (field,) = INLINE.findall(name)
            if line in of_audio:
                assert yaml.safe_load(default) == AudioSettings.model_fields[field].default, field
                continue
            within = (
                AvatarSettings.model_fields.get(field) if line in of_renderer.partition("in `avatars`")[2] else None
            )
            assert yaml.safe_load(default) == (within or fields[field]).default, field


def test_yaml_examples_are_valid_trainings(tmp_path: Path) -> None:
    small, renderer, generator = blocks(ROOT / "docs" / "training.md", "yaml")
    file = tmp_path / "train.yaml"
    file.write_text(small)
    assert load_settings(RendererSettings, file, {}).model == "imtalker-tiny"
    file.write_text(renderer)
    assert load_settings(RendererSettings, file, {}).output == tmp_path / "out/renderer"
    file.write_text(generator)
    assert load_settings(GeneratorSettings, file, {}).data == tmp_path / "clips"


def test_columns_and_ranges_of_avatar_states() -> None:
    text = section(ROOT / "docs" / "avatars.md", "State of a frame")
    assert first_cells(text) == STATES_SCHEMA.names
    for line in (line for line in text.splitlines() if line.startswith("| `")):
        _, names, _, span, *_ = line.split("|")
        for name in set(INLINE.findall(names)) & set(STATE_RANGES):
            assert tuple(map(float, span.split(" to "))) == STATE_RANGES[name], name


def test_columns_of_the_table_of_clips() -> None:
    text = section(ROOT / "docs" / "avatars.md", "What is in it")
    _, _, listed = text.partition("`clips.parquet` has ")
    assert INLINE.findall(listed) == CLIPS_SCHEMA.names


def test_yaml_examples_are_valid_jobs() -> None:
    examples = blocks(ROOT / "docs" / "jobs.md", "yaml")
    assert examples
    for example in examples:
        parse_job({"manifest": "m.parquet", "output": "out", **yaml.safe_load(example)}, "example")


def test_models_and_their_sources() -> None:
    text = read(ROOT / "docs" / "models.md")
    for preset in PRESETS:
        assert f"| `{preset}` |" in text
        for part in parts_of(preset):
            assert f"`{part.repository}`" in text
            assert all(f"`{name}`" in text for names in part.files for name in names)


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, on files of the small model."""
    renderer, generator = build_seeded(PRESETS["imtalker-tiny"])
    save_renderer(renderer, tmp_path / "renderer.safetensors")
    save_generator(generator, tmp_path / "generator.safetensors")
    monkeypatch.chdir(tmp_path)
    networks, talker = blocks(ROOT / "README.md", "python")
    for name, code in (("networks.py", networks), ("talker.py", talker)):
        (tmp_path / name).write_text(code, encoding="utf-8")
    assert tuple(runpy.run_path(str(tmp_path / "networks.py"))["motion"].shape) == (1, 25, 32)
    assert runpy.run_path(str(tmp_path / "talker.py"))["frames"].shape == (10, 128, 128, 3)


def test_imports_follow_the_layers_of_the_architecture() -> None:
    allowed = {
        "imtalker": {"imtalker"},
        "manifests": {"manifests"},
        "pipeline": {"pipeline", "manifests"},
        "jobs": {"jobs", "pipeline", "manifests"},
        "cli": {"jobs", "pipeline", "manifests"},
    }
    doors = [Path("pipeline", name) for name in ("avatars", "bench", "metrics", "talkers", "training", "weights")]
    for file in (path.relative_to(ROOT) for layer in allowed for path in ROOT.glob(f"{layer}*/**/*.py")):
        layer = file.parts[0]
        may = allowed[layer] | ({"imtalker"} if any(file.is_relative_to(door) for door in doors) else set())
        assert imported(ROOT / file) & set(allowed) <= may, file
    assert imported(ROOT / "cli.py") & set(allowed) <= allowed["cli"]


def imported(file: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(read(file))))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in whole | parts}
