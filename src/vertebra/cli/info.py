"""`vertebra info`: a model's facts from its small files alone; the structure is built without weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False)

_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="An id, a folder, or a hub name.")],
    attn: Annotated[str | None, typer.Option(help="An attention kernel, such as eager or sdpa.")] = None,
    family: Annotated[str | None, typer.Option(help="Whose rules a folder follows; none: read off the model.")] = None,
    token: Annotated[str | None, typer.Option(help="Token for private repositories.", envvar="HF_TOKEN")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model's config, parameters, memory, anchor, special tokens, attention, and which facts are guesses."""
    from vertebra.backbone.registry import row_of
    from vertebra.backbone.source import left_by_run
    from vertebra.cli.output import console, facts_table, print_json
    from vertebra.cli.remembered import remembered
    from vertebra.interop.openvla.hub import openvla_folder
    from vertebra.model.description import describe, holds_parts

    if row_of(model) is None:
        model = str(left_by_run(model))

    def measured() -> dict[str, Any]:
        from vertebra.backbone.registry import load_backbone

        # inference mode builds the structure on the meta device: config.json and the tokenizer are all it needs
        return info_of(load_backbone(model, inference_mode=True, attn=attn, family=family, hf_token=token))

    # which kernels can be asked for depends on this machine, and not on the model's files
    about = measured() if attn is not None or family is not None else remembered(model, measured, token=token)
    acts: str | None = None
    reads: str | None = None
    theirs = openvla_folder(model, token=token)
    found = None
    if theirs is not None:
        from vertebra.interop.openvla.describe import describe_openvla

        found = describe_openvla(theirs)
    elif holds_parts(model):
        found = describe(model)
    if found is not None:
        about["multimodal"] = asdict(found)
        acts = _policy(model, about["multimodal"]["record"])
        reads = _pages(model, about["multimodal"]["record"])
    if json:
        print_json(about)
        return
    out = console()
    if found is not None:
        out.print(found.draw(), soft_wrap=True)
    if acts is not None:
        out.print(acts, soft_wrap=True)
    if reads is not None:
        out.print(reads, soft_wrap=True)
    for heading, facts in _headings(about).items():
        out.print(heading, style="bold cyan")
        out.print(facts_table({f"  {name}": value for name, value in facts.items()}))
    if about["guesses"]:
        out.print("No family describes this model. Read off it instead of known:", style="yellow")
        out.print(facts_table({f"  {name}": value for name, value in about["guesses"].items()}))


def _policy(model: str, record: dict[str, Any]) -> str | None:
    """How a folder's model acts, and whether a golden pair is kept; None where it is no policy."""
    from pathlib import Path

    from vertebra.action.record import POLICY, ActionRecord, drawn
    from vertebra.policies.golden_files import FILE, FOLDER

    if POLICY not in record:
        return None
    kept = (Path(model).expanduser() / FOLDER / FILE).is_file()
    pair = "kept" if kept else "none (vertebra act … --golden keeps one)"
    return f"{drawn(ActionRecord.of(record, where=f'`{model}`'))}\n          golden pair: {pair}"


def _pages(model: str, record: dict[str, Any]) -> str | None:
    """How a folder's model reads pages; None where it does not."""
    from vertebra.layout.record import PAGE, PageRecord, drawn

    return drawn(PageRecord.of(record, where=f"`{model}`")) if PAGE in record else None


def info_of(backbone: Any) -> dict[str, Any]:
    """Everything as plain data; sizes in bytes."""
    from vertebra.checks.run import guesses_of

    config = backbone.llm.config
    facts = backbone.attention_facts
    return {
        "id": backbone.identifier,
        "source": backbone.hf_hub_path,
        "family": backbone.llm_family,
        "class": type(backbone.llm).__name__,
        "layer_class": backbone.transformer_layer_cls.__name__,
        "config": {
            "layers": config.num_hidden_layers,
            "hidden_size": backbone.embed_dim,
            "embedding_width": backbone.embedding_width,
            "heads": config.num_attention_heads,
            "key_value_heads": _key_value_heads(config),
            "max_positions": getattr(config, "max_position_embeddings", None),
            "window": facts.window,
            "windowed_layers": _windowed_layers(facts, config),
        },
        "parameters": _parameters(backbone),
        "memory": _memory(backbone),
        "attention": backbone.attn,
        "half_precision": str(backbone.half_precision_dtype).removeprefix("torch."),
        "checkpoint_dtype": str(backbone.dtype).removeprefix("torch."),
        "vocabulary": _vocabulary(backbone),
        "prompt_builder": _builder(backbone),
        "guesses": guesses_of(backbone),
    }


def _windowed_layers(facts: Any, config: Any) -> int:
    if facts.window is None:
        return 0
    if facts.layer_types is None:
        return config.num_hidden_layers
    return sum(kind == "sliding_attention" for kind in facts.layer_types)


def _key_value_heads(config: Any) -> int:
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def _parameters(backbone: Any) -> dict[str, Any]:
    embedding = backbone.llm.get_input_embeddings().weight
    head = backbone.llm.get_output_embeddings()
    tied = head is None or head.weight is embedding
    return {
        "total": sum(p.numel() for p in backbone.llm.parameters()),
        "embedding": embedding.numel(),
        "head": 0 if tied else head.weight.numel(),
        "tied": tied,
        "layers": sum(p.numel() for p in backbone.layers.parameters()),
    }


def _memory(backbone: Any) -> dict[str, int]:
    """Bytes of the weights by type, and of what comes on top; quantization packs the layers' matrices alone."""
    total = sum(p.numel() for p in backbone.llm.parameters())
    packed = sum(p.numel() for p in backbone.layers.parameters() if p.dim() > 1)
    config = backbone.llm.config
    width = getattr(config, "head_dim", None) or backbone.embed_dim // config.num_attention_heads
    per_position = 2 * config.num_hidden_layers * _key_value_heads(config) * width
    return {
        "fp32": 4 * total,
        "bf16": 2 * total,
        "int8": packed + 2 * (total - packed),
        "nf4": packed // 2 + 2 * (total - packed),
        "training_fp32_adamw": 16 * total,
        "cache_per_1000_positions_bf16": 2000 * per_position,
    }


def _vocabulary(backbone: Any) -> dict[str, Any]:
    tokenizer = backbone.tokenizer
    named = {name: getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "pad", "unk")}
    return {
        "tokenizer": type(tokenizer).__name__,
        "tokens": len(tokenizer),
        "rows": backbone.num_rows,
        "anchor": backbone.anchor,
        "adds_bos": backbone.habits.adds_bos,
        "lone_space_id": backbone.habits.lone_space_id,
        "special": {
            name: {"token": token, "id": tokenizer.convert_tokens_to_ids(token)}
            for name, token in named.items()
            if token is not None
        },
        "ends": {tokenizer.convert_ids_to_tokens(end): end for end in backbone.eos_token_ids},
        "grown": [token for growth in backbone.growths for token in growth.tokens],
    }


def _builder(backbone: Any) -> str | None:
    from vertebra.checks.tokens import builder_of

    found = builder_of(backbone)
    return found.name if found else None


def _headings(about: dict[str, Any]) -> dict[str, dict[str, str]]:
    config, count, memory, words = (about[name] for name in ("config", "parameters", "memory", "vocabulary"))
    window = f"{config['window']} positions in {config['windowed_layers']} layers" if config["window"] else "none"
    head = "tied to the embedding" if count["tied"] else f"{count['head']:,}"
    special = ", ".join(f"{name} {entry['token']} = {entry['id']}" for name, entry in words["special"].items())
    return {
        about["id"]: {
            "source": about["source"],
            "family": about["family"],
            "class": f"{about['class']}, layers {about['layer_class']}",
            "size": f"{config['layers']} layers, hidden {config['hidden_size']}, {config['heads']} heads, "
            f"{config['key_value_heads']} for keys and values"
            + (
                f", embedding {config['embedding_width']}" if config["embedding_width"] != config["hidden_size"] else ""
            ),
            "positions": f"{config['max_positions']}, window {window}",
            "attention": about["attention"],
        },
        "parameters": {
            "total": f"{count['total']:,}",
            "embedding": f"{count['embedding']:,}",
            "head": head,
            "layers": f"{count['layers']:,}",
        },
        "memory": {
            "weights": ", ".join(f"{name} {size_text(memory[name])}" for name in ("fp32", "bf16", "int8", "nf4")),
            "full training": f"{size_text(memory['training_fp32_adamw'])} (weights, gradients and AdamW in fp32)",
            "cache": f"{size_text(memory['cache_per_1000_positions_bf16'])} for 1000 positions of one row, bf16",
            "written in": f"{about['checkpoint_dtype']}; half precision is {about['half_precision']}",
        },
        "tokens": {
            "tokenizer": f"{words['tokenizer']}, {words['tokens']} tokens in {words['rows']} rows",
            "anchor": f"{words['anchor']} (the tokenizer adds {'BOS' if words['adds_bos'] else 'none'} by itself)",
            "special": special,
            "ends": ", ".join(f"{token} = {number}" for token, number in words["ends"].items()),
            "added here": ", ".join(words["grown"]) or "none",
            "prompt builder": about["prompt_builder"] or "none known; name one with --builder",
        },
    }


def size_text(number: int) -> str:
    """Bytes as people say them."""
    for unit, size in _UNITS:
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
