"""`trilemma deploy`: a plan, a deployment or a stored run as the files that start it."""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli import options as o
from trilemma.cli.output import emit
from trilemma.cli.progress import progress
from trilemma.errors import InputError

Source = Annotated[
    Path, typer.Argument(metavar="SCENARIO_OR_RUN", help="A scenario file (YAML), or the id of a stored run.")
]
Target = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What is written: vllm, trtllm or sglang (commands), compose, kubernetes, keda, llm-d or kserve.",
    ),
]
OutputDir = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write the files into this new or empty folder: all or none.")
]
Checkpoint = Annotated[
    str | None, typer.Option(metavar="NAME", help="Repository or folder of the weights, if not the usual one.")
]
Image = Annotated[str | None, typer.Option(help="Container image, if not the engine's own at the pinned version.")]
Name = Annotated[str | None, typer.Option(help="Name of what is deployed; the scenario's if left out.")]
Prometheus = Annotated[
    str | None, typer.Option(metavar="URL", help="Prometheus server that keda asks; the operator's if left out.")
]


def deploy(
    source: Source,
    *,
    target: Target,
    output_dir: OutputDir = None,
    checkpoint: Checkpoint = None,
    image: Image = None,
    name: Name = None,
    prometheus: Prometheus = None,
    accelerator: o.Accelerator = None,
    engine: o.Engine = None,
    precision: o.Precision = None,
    kv_precision: o.KvPrecision = None,
    tensor: o.Tensor = None,
    pipeline: o.Pipeline = None,
    data: o.Data = None,
    expert: o.Expert = None,
    replicas: o.Replicas = None,
    max_num_batched_tokens: o.MaxNumBatchedTokens = None,
    max_num_seqs: o.MaxNumSeqs = None,
    set_: o.Assignments = None,
    seed: o.Seed = None,
    catalogue: o.CatalogueFiles = None,
    store: o.StoreFile = None,
    keep: o.Keep = True,
    output: o.Output = None,
    output_file: o.OutputFile = None,
    quiet: o.Quiet = False,
) -> None:
    """Write what starts a plan, or a deployment given in flags: commands, compose, Kubernetes, autoscaling.

    What to look out for is printed on stderr, and stands at the top of every file.
    """
    from trilemma import api

    deployment = o.given({
        "accelerator": accelerator, "engine": engine, "precision": precision, "kv_precision": kv_precision,
        "tensor": tensor, "pipeline": pipeline, "data": data, "expert": expert, "replicas": replicas,
        "max_num_batched_tokens": max_num_batched_tokens, "max_num_seqs": max_num_seqs,
    })  # fmt: skip
    if output_dir is not None:
        _check_folder(output_dir, output_file)
    more = o.given({"checkpoint": checkpoint, "image": image, "name": name, "prometheus": prometheus})
    with progress("simulations" if deployment else "candidates", quiet=quiet) as advance:
        result = api.deploy(
            source,
            target=target,
            deployment=deployment,
            overrides=o.assignments(set_),
            catalogue_files=catalogue or (),
            seed=seed,
            progress=advance,
            store=store,
            keep=keep,
            **more,
        )
    if output_dir is not None:
        files = {file["name"]: file["text"] for file in result["files"]}
        write_all(output_dir, files)
        for file in files:
            print(f"wrote {output_dir / file}", file=sys.stderr)
        return
    emit(result["files"], output=output, output_file=output_file, document=result, text=lambda: _text(result))


def _text(result: Mapping[str, Any]) -> str:
    """The files one after the other; of several each is named, and YAML stays YAML."""
    files = result["files"]
    if len(files) == 1:
        return str(files[0]["text"])
    return "---\n".join(f"# file: {file['name']}\n{file['text']}" for file in files)


def _check_folder(folder: Path, output_file: Path | None) -> None:
    """InputError where the folder cannot be written as a whole."""
    place = f"--output-dir {folder}"
    if output_file is not None:
        raise InputError("--output-file", expected="nothing beside --output-dir", found=repr(str(output_file)))
    if folder.exists() and not folder.is_dir():
        raise InputError(place, expected="a folder", found="a file")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(place, expected="a new or an empty folder", found="one with files in it")
    if not folder.resolve().parent.is_dir():
        raise InputError(place, expected="a folder inside an existing one", found=f"no {folder.resolve().parent}")


def write_all(folder: Path, files: Mapping[str, str]) -> None:
    """Writes the files beside `folder` and renames the whole into place. InputError where that cannot be done, with
    nothing left behind."""
    target = folder.resolve()
    place = f"--output-dir {folder}"
    _check_folder(folder, None)
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise InputError(place, expected="a folder to write", found=str(error.strerror)) from None
    try:
        for name, text in files.items():
            path = beside / name
            path.write_text(text, encoding="utf-8")
            if name.endswith(".sh"):
                path.chmod(0o755)
        beside.chmod(0o755)
        os.replace(beside, target)  # takes the place of an empty folder, and of no other
    except OSError as error:
        raise InputError(place, expected="a folder to write", found=str(error.strerror)) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
