"""`vertebra import-openvla`: a folder of OpenVLA's, OFT's or prismatic's as a model folder of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vertebra.cli.paths import PATH

app = typer.Typer(add_completion=False)


@app.command("import-openvla")
def import_openvla(
    folder: Annotated[str, typer.Argument(help="OpenVLA's or OFT's folder, a prismatic run, or a hub name.")],
    out: Annotated[Path, typer.Argument(help="Where the model goes.", **PATH)],
    base: Annotated[str | None, typer.Option(help="What an adapter in the folder goes on.")] = None,
    chunk: Annotated[int | None, typer.Option(help="Actions of one pass (OFT); guessed by the robot.")] = None,
    cameras: Annotated[str | None, typer.Option(help="Names of the images in order, as in image,wrist.")] = None,
    center_crop: Annotated[
        bool | None, typer.Option("--center-crop/--no-center-crop", help="Cut images as training did.")
    ] = None,
    heads: Annotated[str | None, typer.Option(help="Attention heads of each tower, as in 16,16.")] = None,
    prompt: Annotated[str | None, typer.Option(help="openvla, or v01.")] = None,
    action_vocabulary: Annotated[int | None, typer.Option(help="The id behind the last action.")] = None,
    llm: Annotated[str | None, typer.Option(help="Config and tokenizer of a prismatic run's language model.")] = None,
    dtype: Annotated[str | None, typer.Option(help="What it is written in; as it is stored by default.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the model that is in the folder.")] = False,
) -> None:
    """Read the model, report what had to be guessed, and write it as one folder; the input is not touched."""
    from vertebra.cli.output import console
    from vertebra.errors import ConfigError
    from vertebra.folders import require_free
    from vertebra.interop.openvla.hub import openvla_folder
    from vertebra.interop.openvla.options import ImportOptions
    from vertebra.interop.openvla.read import load_openvla

    if not (heads or "1").replace(",", "").isdigit():
        raise ConfigError(f"--heads {heads!r:.40}: expected numbers such as 16,16")
    options = ImportOptions(
        chunk=chunk,
        cameras=tuple(cameras.split(",")) if cameras else None,
        center_crop=center_crop,
        heads=tuple(map(int, heads.split(","))) if heads else None,
        prompt=prompt,  # type: ignore[arg-type]
        action_vocabulary=action_vocabulary,
        llm=llm,
    )
    require_free(out, overwrite=overwrite, reads=[folder, *([] if base is None else [base])])
    found = openvla_folder(folder)
    model = load_openvla(folder if found is None else found, options, base=base, dtype=dtype)
    model.save(out, overwrite=overwrite)
    console().print(f"written to {out}; `vertebra info {out}` draws it", soft_wrap=True)
