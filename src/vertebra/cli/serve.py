"""`vertebra serve`: a policy or a language model for the clients that people already have, until a signal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vertebra.cli.asking import Attn, Base, Device, Dtype, Token, given

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    model: Annotated[
        str, typer.Argument(help="The folder of a policy or of a run, or any model's id, folder or name.")
    ],
    host: Annotated[str, typer.Option(help="The address; 0.0.0.0 opens the server to the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes any that is free.")] = 8000,
    groot: Annotated[int | None, typer.Option(help="A port for GR00T's clients, over ZMQ (extra `groot`).")] = None,
    token: Annotated[
        str | None, typer.Option(help="Only who sends this token may ask.", envvar="VERTEBRA_SERVE_TOKEN")
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Robots that are answered in one pass.")] = 8,
    batch_wait: Annotated[float, typer.Option(help="Seconds that a request waits at most for others.")] = 0.005,
    queue: Annotated[int, typer.Option(help="Requests that may wait; further ones get 503.")] = 64,
    time_limit: Annotated[float, typer.Option(help="Seconds from a request to its answer.")] = 60.0,
    body_time: Annotated[float, typer.Option(help="Seconds in which the body of a request must be here.")] = 10.0,
    drain: Annotated[float, typer.Option(help="Seconds for accepted requests after SIGTERM.")] = 30.0,
    body: Annotated[int | None, typer.Option(help="Bytes that a request may have.")] = None,
    pixels: Annotated[int | None, typer.Option(help="Pixels that an image may have.")] = None,
    camera: Annotated[
        list[str] | None, typer.Option(help="THEIRS=OURS: a client's name of a camera; repeatable.")
    ] = None,
    execute: Annotated[int | None, typer.Option(help="How many actions of a chunk, from the first.")] = None,
    missing: Annotated[str, typer.Option(help="A camera without an image: refuse, or mask.")] = "refuse",
    outside: Annotated[str, typer.Option(help="Actions beyond the data: pass, clamp, or refuse.")] = "pass",
    base: Base = None,
    dtype: Dtype = None,
    device: Device = None,
    attn: Attn = None,
    hf_token: Token = None,
) -> None:
    """Serve a policy (HTTP and websockets: OpenVLA's, OFT's, openpi's and vla-eval's clients) or a language model
    (OpenAI's clients). It listens on this machine alone unless `--host` opens it."""
    from vertebra import config
    from vertebra.backbone.registry import require_name
    from vertebra.policies.settings import PolicySettings
    from vertebra.serve.server import Server, bind, require_parts
    from vertebra.serve.settings import ServeSettings

    require_parts()
    require_name(model)  # before torch is imported for it
    chosen = given(
        host=host, port=port, groot=groot, token=token, max_batch=max_batch, batch_wait=batch_wait, queue=queue, drain=drain,
        time_limit=time_limit, body_time=body_time, body=body, pixels=pixels, rename=_cameras(camera) or None,
    )  # fmt: skip
    settings = config.build(ServeSettings, chosen, where="the options of a server")
    acting: dict[str, Any] = {"missing_camera": missing, "outside": outside, "execute": execute}
    how = config.build(PolicySettings, acting, where="the options of a policy")
    with bind(settings) as bound:  # a port that is taken is found before a model is loaded
        from vertebra.serve.holding import Folder

        folder = Folder(model)
        served = _loaded(model, how, base=base, dtype=dtype, device=device, attn=attn, hf_token=hf_token)
        server = Server(served, settings, name=model, bound=bound, folder=folder)
        typer.echo(f"serving {model} on {server.url} (the same address for ws://; a page at /, the interface at /info)")
        server.run()


def _loaded(model: str, how: Any, *, base: str | None, hf_token: str | None, **options: Any) -> Any:
    """The policy of a folder whose model has a record of actions; any other model as it is."""
    from vertebra.action.record import POLICY
    from vertebra.cli.asking import load
    from vertebra.interop.acting import hold
    from vertebra.policies.policy import Policy
    from vertebra.policies.settings import PolicySettings

    loaded = load(model, token=hf_token, base=base, **options)
    if POLICY not in loaded.record:
        if how != PolicySettings():
            raise typer.BadParameter(
                "--execute, --missing and --outside are about policies, and this is a language model"
            )
        return loaded
    made = Policy(loaded, settings=how)
    hold(made, model)
    return made


def _cameras(given: list[str] | None) -> dict[str, str]:
    made = {}
    for one in given or []:
        theirs, mark, ours = one.partition("=")
        if not mark or not theirs or not ours:
            raise typer.BadParameter(f"--camera {one!r}: expected THEIRS=OURS, as in agentview=image")
        made[theirs] = ours
    return made
