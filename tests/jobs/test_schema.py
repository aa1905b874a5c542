"""A job file says exactly what runs: unknown keys are errors, flags win, paths stand in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.schema import Job, load_job
from pipeline.config import RunSettings
from pipeline.errors import CannotRun

EXAMPLES = Path(__file__).parents[2] / "jobs"


def write(folder: Path, content: str) -> Path:
    file = folder / "job.yaml"
    file.write_text(content)
    return file


@pytest.mark.parametrize("name", ["dubbing.yaml", "synthetic.yaml"])
def test_the_examples_load(name: str) -> None:
    job = load_job(EXAMPLES / name)
    assert job.name == name.removesuffix(".yaml")
    assert job.settings != RunSettings()


def test_an_empty_job_is_the_defaults(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, "manifest: s3://b/m.parquet\noutput: /out\n"))
    assert job == Job(manifest="s3://b/m.parquet", output="/out")
    assert job.settings == RunSettings()


def test_relative_paths_stand_in_the_job_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    file = write(
        tmp_path / "jobs",
        "manifest: m.parquet\noutput: ../out\n"
        "settings: {weights: {renderer: w/r.safetensors, generator: s3://b/g.ckpt}}\n"
        "ray: {runtime_env: {working_dir: ..}}\n",
    )
    monkeypatch.chdir(tmp_path)
    job = load_job("jobs/job.yaml")
    folder = file.parent
    assert job.manifest == f"{folder}/m.parquet"
    assert Path(job.output).resolve() == tmp_path.resolve() / "out"
    assert job.settings.weights == {"renderer": f"{folder}/w/r.safetensors", "generator": "s3://b/g.ckpt"}
    assert Path(job.ray.runtime_env.working_dir or "").resolve() == tmp_path.resolve()


def test_every_mistake_is_named_with_its_place_and_the_nearest_key(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "manifset: m.parquet\noutput: out\nlimit: 0\n"
        "settings:\n  cfgscale: 2\n  video: {crf: 99, presets: fast}\n  resources: {render: {gpus: 1}}\n"
        "ray: {runtime_env: {conda: x}}\n",
    )
    with pytest.raises(CannotRun) as raised:
        load_job(file)
    first, *lines = str(raised.value).splitlines()
    assert first == f"{file}: not a valid job:"
    assert sorted(lines) == [
        "  limit: Input should be greater than or equal to 1, found 0",
        "  manifest: required, but absent",
        "  manifset: unknown key; did you mean 'manifest'?",
        "  ray.runtime_env.conda: unknown key; known: pip, working_dir, excludes, env_vars",
        "  settings.cfgscale: unknown key; did you mean 'cfg_scale'?",
        "  settings.resources.render.gpus: unknown key; did you mean 'num_gpus'?",
        "  settings.video.crf: Input should be less than or equal to 51, found 99",
        "  settings.video.presets: unknown key; did you mean 'preset'?",
    ]


def test_flags_win_over_the_job_and_the_job_over_the_defaults(tmp_path: Path) -> None:
    job = load_job(
        write(
            tmp_path,
            "manifest: /m\noutput: /o\nretry: failed\n"
            "settings:\n  seed: 7\n  nfe: 5\n  video: {crf: 20, preset: slow}\n"
            "  weights: {renderer: /r, generator: /g}\n",
        )
    )
    changed = job.with_overrides(
        {
            "seed": 8,
            "nfe": None,
            "limit": 3,
            "retry": "model",
            "video.crf": 30,
            "weights": {"renderer": "/other"},
            "ray.address": "auto",
            "settings.face": "first",
        }
    )
    assert (changed.settings.seed, changed.settings.nfe, changed.settings.cfg_scale) == (8, 5, 3.0)
    assert (changed.settings.video.crf, changed.settings.video.preset) == (30, "slow")
    assert changed.settings.weights == {"renderer": "/other", "generator": "/g"}
    assert (changed.limit, changed.ray.address, changed.settings.face) == (3, "auto", "first")
    assert (job.retry, changed.retry) == ("failed", "model")
    assert job.settings.seed == 7
    assert job.with_overrides({}) == job


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sead": 1}, "unknown setting 'sead'; did you mean 'seed'?"),
        ({"seed": -1}, "settings.seed: Input should be greater than or equal to 0, found -1"),
        ({"video.crff": 1}, "settings.video.crff: unknown key; did you mean 'crf'?"),
        ({"seed.x": 1}, "settings.seed.x: seed is a single value and has no parts"),
        ({"retry": "slow"}, "retry: Input should be 'failed', 'input', 'model', 'infrastructure', 'quality' or 'bug'"),
        ({"motion_from": "lips"}, "settings.motion_from: Input should be 'audio' or 'driver', found 'lips'"),
    ],
)
def test_a_wrong_flag_is_named(flags: dict[str, object], message: str) -> None:
    with pytest.raises(CannotRun) as raised:
        Job(manifest="/m", output="/o").with_overrides(flags)
    assert message in str(raised.value)


def test_secrets_are_shown_neither_by_errors_nor_by_the_public_form(tmp_path: Path) -> None:
    content = "manifest: /m\noutput: /o\nsettings: {storage_options: {s3: {secret: hunter2}}}\n"
    job = load_job(write(tmp_path, content + "ray: {runtime_env: {env_vars: {TOKEN: hunter2}}}\n"))
    assert "hunter2" not in str(job.public())
    assert job.public()["settings"]["seed"] == 42
    with pytest.raises(CannotRun) as raised:
        load_job(write(tmp_path, content + "ray: {runtime_env: {env_vars: {TOKEN: 123456}}}\n"))
    assert "ray.runtime_env.env_vars.TOKEN" in str(raised.value)
    assert "123456" not in str(raised.value)
    with pytest.raises(CannotRun) as raised:
        load_job(write(tmp_path, "manifest: /m\noutput: /o\nsettings: {storage_options: hunter2}\n"))
    assert "hunter2" not in str(raised.value)
