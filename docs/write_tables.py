"""Write the generated part of recipe.md, from the models that read a recipe. `python docs/write_tables.py`"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from weightgate import recipe

PAGE = Path(__file__).parent / "recipe.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The recipe", recipe.Recipe),
    ("`base`", recipe.Base),
    ("`tokenizer`", recipe.Tokenizer),
    ("`architecture`", recipe.Architecture),
    ("`probes`", recipe.Probes),
    ("`budget`", recipe.Budget),
    ("A stage of kind `pretrain`", recipe.Pretrain),
    ("A stage of kind `finetune`", recipe.Finetune),
    ("A stage of kind `reward`", recipe.Reward),
    ("A stage of kind `align`", recipe.Align),
    ("`data`: a list of sources", recipe.Source),
    ("`optimizer`", recipe.Optimizer),
    ("`schedule`", recipe.Schedule),
    ("`adapter`", recipe.Adapter),
    ("`ppo`", recipe.PPO),
    ("`ppo.adaptive_kl`", recipe.KLController),
    ("`gates`: a list of gates", recipe.Gate),
)
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def tables() -> str:
    """One Markdown table for each part of a recipe, in the order in which a reader meets them."""
    return "\n\n".join(f"## {title}\n\n{_sentence(part)}\n\n{_table(part)}" for title, part in PARTS)


def _sentence(part: type[BaseModel]) -> str:
    return (part.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")


def _table(part: type[BaseModel]) -> str:
    rows = [_row(name, field) for name, field in part.model_fields.items()]
    return "\n".join(["| key | takes | default | meaning |", "|---|---|---|---|", *rows])


def _row(name: str, field: FieldInfo) -> str:
    bounds = [f"{words} {value}" for key, words in _BOUNDS.items() if (value := _bound(field, key)) is not None]
    takes = ", ".join([_takes(field.annotation), *bounds]).replace("|", r"\|")
    return f"| `{name}` | {takes} | {_default(field)} | {(field.description or '').replace('|', chr(92) + '|')} |"


def _bound(field: FieldInfo, key: str) -> Any:
    return next((getattr(each, key) for each in field.metadata if getattr(each, key, None) is not None), None)


def _takes(annotation: Any) -> str:
    """A type in the words of YAML."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is list:
        return f"list of {_takes(inner[0])}".replace("list of mapping,", "list of mappings,")
    if origin is dict:
        return "mapping"
    if origin is not None and origin not in (Union, type(int | str)):
        return _takes(inner[0])
    if inner:
        return " or ".join(dict.fromkeys(_takes(each) for each in inner if each is not type(None)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping, see below"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own defaults"
    if value is None:
        return "none"
    if value in ([], {}):
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def renewed(text: str) -> str:
    """The page with its generated part made anew."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{tables()}\n\n{END}", text)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
