"""Strict YAML configuration: a misspelt key is an error that names the nearest right one."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from potstill.stop import Stop


class _Loader(yaml.SafeLoader):
    """Refuses what YAML takes in silence: a key that is there twice, and `on` or `yes` as a key, which is `true`."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is a boolean; quote it", key.start_mark
                )
            if key.tag == "tag:yaml.org,2002:str" and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


C = TypeVar("C", bound=BaseModel)


def load(path: Path, model: type[C], overrides: Iterable[str] = ()) -> C:
    """Reads a YAML file into `model`. `overrides` are dotted `key=value` pairs, the value in YAML.

    Raises Stop 2 that names the file, the key and the rule.
    """
    values = read_yaml(path)
    for override in overrides:
        _apply(values, override)
    return validate(values, model, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        hint = nearest(path.stem, known) or (f" Known: {', '.join(known)}." if known else "")
        raise Stop(f"{path} is not there.{hint}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise Stop(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise Stop(f"{path}: want a mapping of keys to values, found {type(values).__name__}")
    return values


def validate(values: Any, model: type[C], where: str) -> C:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Stop(f"{where}: {'; '.join(_line(item, model) for item in error.errors(include_url=False))}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?', or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _line(item: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(step) for step in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key {key!r}.{nearest(str(item['loc'][-1]), _keys_at(model, item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"key {key!r} is missing"
    hint = " (YAML reads 1e-5 as text: write 1.0e-5)" if item["type"] == "float_type" else ""
    return f"{key} is {item['input']!r}: {item['msg']}{hint}"


def _keys_at(model: type[BaseModel], steps: tuple[Any, ...]) -> list[str]:
    """The keys known where `steps` lead, through sections and through mappings of names to sections."""
    annotation: Any = model
    for step in steps:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(step))
            annotation = _section(field.annotation) if field else None
        elif get_origin(annotation) is dict:
            annotation = _section(get_args(annotation)[1])
    return list(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _section(annotation: Any) -> Any:
    """The model or mapping in an annotation such as `Lora | None` or `Annotated[dict[str, Task], ...]`."""
    options = [annotation, *get_args(annotation)] if get_origin(annotation) is not dict else [annotation]
    for option in options:
        is_model = isinstance(option, type) and issubclass(option, BaseModel)
        if get_origin(option) is dict or is_model:
            return option
    return None


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise Stop(f"-o {override!r}: want key=value, for example -o sft.learning_rate=1.0e-3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise Stop(f"-o {override!r}: the value is not YAML") from None
    *parents, last = key.split(".")
    for step in parents:
        values = values.setdefault(step, {})
        if not isinstance(values, dict):
            raise Stop(f"-o {override!r}: {step!r} is a value, not a section")
    values[last] = value
