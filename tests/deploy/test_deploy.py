"""`deploy` from a scenario, from flags, from a stored run; and the files it writes, all or none."""

import json
import warnings
from pathlib import Path

import pytest
import yaml
from tests.planner.questions import CLOSED, SMALL, together

from trilemma import api
from trilemma.cli import deploy as command
from trilemma.cli.frame import run
from trilemma.errors import InfeasibleError, InputError, UnsupportedError

ONE = {"space.accelerators": ["h100_sxm"], "space.precisions": ["bf16"], "space.max_num_seqs": [128, 256]}
FLAGS = {"accelerator": "h100_sxm", "tensor": 2, "replicas": 2}
SAID = ("--accelerator", "h100_sxm", "--tp", "2", "--replicas", "2")


@pytest.fixture
def says(capsys, tmp_path, monkeypatch):
    """Runs a command line with a store of its own; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("TRILEMMA_STORE", str(tmp_path / "runs.db"))

    def say(*arguments):
        code = run(["deploy", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return say


def deploy(source=SMALL, **options):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = api.deploy(source, **options)
    assert set(result["warnings"]) <= {str(warning.message) for warning in seen}
    return result


def only(result):
    (file,) = result["files"]
    return list(yaml.safe_load_all(file["text"]))


def test_a_plan_and_its_stored_run_are_deployed_alike(tmp_path):
    store = tmp_path / "runs.db"
    more = {"overrides": ONE, "processes": 1, "store": store}
    chosen = api.plan(SMALL, **more).to_dict()["chosen"]
    (stored,) = api.list_runs(store=store)
    planned = deploy(target="kubernetes", **more)
    assert planned["deployment"] == {key: chosen[key] for key in planned["deployment"]}
    (found,) = (part for part in only(planned) if part["kind"] == "Deployment")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert found["spec"]["replicas"] * gpus == chosen["gpus"]
    assert deploy(stored["id"], target="kubernetes", store=store)["files"] == planned["files"]
    scaled, of_run = (only(deploy(x, target="keda", store=store, **y))[0]["spec"]
                      for x, y in ((SMALL, {"overrides": ONE, "processes": 1}), (stored["id"], {})))  # fmt: skip
    assert scaled["maxReplicaCount"] == of_run["maxReplicaCount"] == chosen["replicas"]
    assert 1 <= scaled["minReplicaCount"] <= scaled["maxReplicaCount"]
    thresholds = [float(s["triggers"][0]["metadata"]["threshold"]) for s in (scaled, of_run)]
    assert thresholds[0] == pytest.approx(thresholds[1], rel=0.5)  # a run keeps latencies of its load, not of the knee
    assert thresholds[0] > 0


def test_the_threshold_times_the_replicas_carries_the_load():
    result = deploy(target="keda", deployment=FLAGS)
    spec = only(result)[0]["spec"]
    text = result["files"][0]["text"]
    knee_rps = float(text.split("knee of a replica: ")[1].split()[0])
    in_flight = float(text.split("requests/s, ")[1].split()[0])
    assert float(spec["triggers"][0]["metadata"]["threshold"]) <= in_flight * 1.05
    assert knee_rps > 0


def test_an_engine_as_target_is_the_engine_of_flags():
    text = deploy(target="sglang", deployment=FLAGS)["files"][0]["text"]
    assert "sglang.launch_server" in text
    assert text.startswith("#!/bin/sh\n# 2 x h100_sxm TP2")


def test_a_target_that_the_space_does_not_run_is_said_before_any_planning():
    seen = []
    with pytest.raises(UnsupportedError, match=r"--set space.engines=\[sglang\]"):
        api.deploy(SMALL, target="sglang", progress=lambda *now: seen.append(now))
    with pytest.raises(UnsupportedError, match="--engine trtllm"):
        api.deploy(SMALL, target="trtllm", deployment=FLAGS | {"engine": "vllm"})
    assert seen == []


def test_what_has_no_knee_is_not_scaled():
    with pytest.raises(UnsupportedError, match="no knee"):
        api.deploy(SMALL, target="keda", deployment=FLAGS, overrides=together(ONE, CLOSED))


def test_where_nothing_meets_the_limits_nothing_is_deployed(tmp_path):
    wrong = ONE | {"limits": ["ttft p99 <= 1 ms"]}
    with pytest.raises(InfeasibleError):
        api.deploy(SMALL, target="vllm", overrides=wrong, processes=1, store=tmp_path / "runs.db")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "nomad"}, "--target: expected one of vllm"),
        ({"target": "vllm", "deployment": {"gpu": "h100"}}, "deployment: expected keys among"),
        ({"target": "vllm", "deployment": {"accelerator": "h1000"}}, "--accelerator"),
    ],
)
def test_bad_input_is_named(options, said):
    with pytest.raises(InputError) as raised:
        api.deploy(SMALL, **options)
    assert said in str(raised.value)


def test_a_run_that_is_not_there_and_a_run_with_flags(tmp_path):
    with pytest.raises(InputError, match="run"):
        api.deploy("abcdef12", target="vllm", store=tmp_path / "runs.db")
    with pytest.raises(InputError, match="none that change a stored run"):
        api.deploy("abcdef12", target="vllm", deployment=FLAGS, store=tmp_path / "runs.db")


def test_the_command_prints_files_and_talks_on_stderr(says):
    code, out, err = says(SMALL, "--target", "kubernetes", *SAID)
    assert code == 0
    assert [part["kind"] for part in yaml.safe_load_all(out)][:2] == ["PersistentVolumeClaim", "Deployment"]
    assert "warning: --gpu-memory-utilization" in err
    assert says(SMALL, "--target", "kubernetes", *SAID, "-q")[1:] == (out, "")
    document = json.loads(says(SMALL, "--target", "kubernetes", *SAID, "-q", "-o", "json")[1])
    assert document["files"][0]["text"] == out
    several = says(SMALL, "--target", "llm-d", *SAID, "-q")[1]
    assert several.count("# file: ") == 3
    assert len(list(yaml.safe_load_all(several))) >= 4


def test_a_folder_is_written_whole(says, tmp_path):
    folder = tmp_path / "out"
    code, out, err = says(SMALL, "--target", "llm-d", *SAID, "--output-dir", folder)
    assert (code, out) == (0, "")
    assert sorted(path.name for path in folder.iterdir()) == [
        "kustomization.yaml", "modelserver.yaml", "router.values.yaml",
    ]  # fmt: skip
    assert f"wrote {folder / 'modelserver.yaml'}" in err
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]
    before = {path: path.read_text() for path in folder.iterdir()}
    code, _, err = says(SMALL, "--target", "kubernetes", *SAID, "--output-dir", folder)
    assert code == 2
    assert "expected a new or an empty folder" in err
    assert {path: path.read_text() for path in folder.iterdir()} == before


def test_a_folder_is_not_written_by_half(tmp_path, monkeypatch):
    write = Path.write_text

    def full(path, text, **more):
        if path.name == "second":
            raise OSError(28, "No space left on device")
        return write(path, text, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space left on device"):
        command.write_all(tmp_path / "out", {"first": "1", "second": "2"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--target", "kubernets"), 2, "did you mean 'kubernetes'?"),
        (("--target", "vllm", "--output-dir", "{here}/no/out"), 2, "a folder inside an existing one"),
        (("--target", "vllm", "--output-dir", "{here}/file"), 2, "expected a folder, found a file"),
        (("--target", "vllm", "--output-dir", "{here}/o", "--output-file", "{here}/f"), 2, "beside --output-dir"),
        (("--target", "compose", *SAID, "--replicas", "9"), 5, "compose starts one machine"),
        ((), 2, "--target"),
    ],
)
def test_what_is_refused_leaves_nothing(says, tmp_path, flags, code, said):
    (tmp_path / "file").write_text("mine")
    arguments = [flag.format(here=tmp_path) for flag in flags]
    got, out, err = says(SMALL, *arguments)
    assert (got, out) == (code, "")
    assert said in err
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("runs.db")] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"
