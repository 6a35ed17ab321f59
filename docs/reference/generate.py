"""Write the generated parts of docs/reference: ``make reference``.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``. The text around it is
written by hand.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import typer
from pydantic.fields import FieldInfo
from samtranslator.yaml_helper import yaml_parse

import client.errors
import core.errors
import functions.contracts.errors
import functions.runtime.safe_http
from client.cli import LazyCommand, app
from core.errors import BackgroundRemoverError, PermanentError, TransientError
from core.limits import MAX_PIXELS
from core.options import Options, OutputFormat
from core.presets import BUILT_IN
from core.types import ImageInfo, Precision
from functions.contracts.metrics import METRICS
from functions.validate.memory import encode_bytes, refine_bytes

_Case = TypeVar("_Case")

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent.parent
TEMPLATE: Final = ROOT / "template.yaml"
INFRASTRUCTURE: Final = ROOT / "infrastructure"
API: Final = ROOT / "functions/api"


def main() -> None:
    """Update every page of docs/reference that has a generated part."""
    for page in pages():
        text = page.read_text()
        if (updated := render(text)) != text:
            page.write_text(updated)
            print(f"updated {page.relative_to(ROOT)}")


def pages() -> list[Path]:
    """Return the pages that have a generated part."""
    return [page for page in sorted(FOLDER.glob("*.md")) if "<!-- generated: " in page.read_text()]


def render(text: str) -> str:
    """Return a page with its generated parts up to date."""
    return re.sub(
        r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end of \2 -->)",
        lambda found: f"{found[1]}\n{PARTS[found[2]]().strip()}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in line)} |" for line in lines
    )


def options() -> str:
    """Return the table of options."""
    rows = [[f"`{name}`", _default(field), field.description or ""] for name, field in Options.model_fields.items()]
    return table(["Option", "Default", "Description"], rows)


def presets() -> str:
    """Return the table of built-in presets."""
    rows = [
        [f"`{name}`", ", ".join(f"`{option}={value}`" for option, value in preset.items())]
        for name, preset in BUILT_IN.items()
    ]
    return table(["Preset", "Options"], rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def cli() -> str:
    """Return all commands of ``pbr`` with their arguments and options."""
    return "\n\n".join(_commands("pbr", typer.main.get_command(app)))


def _commands(path: str, command: Any) -> Iterator[str]:
    subcommands = getattr(command, "commands", {})
    if not subcommands or command.invoke_without_command:
        yield _command(path, command)
    elif command.epilog:
        yield _plain(command.epilog)
    for name, subcommand in sorted(subcommands.items()):
        if not subcommand.hidden:
            loaded = subcommand.load() if isinstance(subcommand, LazyCommand) else subcommand
            yield from _commands(f"{path} {name}", loaded)


def _command(path: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    words = [path, "[OPTIONS]", *(_argument(one) for one in arguments)]
    parts = [f"## {path}", f"`{' '.join(words)}`", _plain(command.help or "")]
    rows = [[_flags(one), _plain(one.help or ""), _shown_default(one)] for one in command.params if not one.hidden]
    if rows:
        parts.append(table(["Option", "Description", "Default"], rows))
    return "\n\n".join(part for part in parts if part)


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    return name if parameter.required else f"[{name}]"


def _flags(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
    choices = _choices(parameter.type_descriptor.annotation)
    variable = f" (`{parameter.envvar}`)" if parameter.envvar else ""
    return flags + (f" `{'|'.join(choices)}`" if choices else "") + variable


def _choices(annotation: Any) -> list[str]:
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return [str(one.value) for one in annotation]
    return [choice for inner in get_args(annotation) for choice in _choices(inner)]


def _shown_default(parameter: Any) -> str:
    shown = parameter.show_default
    if isinstance(shown, str):
        return shown
    return "" if not shown or parameter.default in (None, False) else f"`{parameter.default}`"


def _plain(help_text: str) -> str:
    """Return help as Markdown: typer's bold is code in the documentation."""
    return re.sub(r"\[/?bold\]", "`", inspect.cleandoc(help_text).replace("\b\n", ""))


def template() -> str:
    """Return parameters and outputs of the stack, and of stacks that are deployed by themselves."""
    nested = TEMPLATE.read_text()
    others = [path for path in sorted(INFRASTRUCTURE.glob("*.yaml")) if path.name not in nested]
    return "\n\n".join(_stack(path) for path in (TEMPLATE, *others))


def memory() -> str:
    """Return the tables of the largest images by memory of a function."""
    parameters = yaml_parse(TEMPLATE.read_text())["Parameters"]
    encoded: dict[str, Options] = {
        "png": Options(),
        "jpeg, zip": Options(format=OutputFormat.ZIP),
        "webp": Options(format=OutputFormat.WEBP),
        "webp_lossless": Options(format=OutputFormat.WEBP_LOSSLESS),
        "avif": Options(format=OutputFormat.AVIF),
        "avif, scaled": Options(format=OutputFormat.AVIF, scale="90%"),
    }
    refined = {precision.value: precision for precision in (Precision.HIGH, Precision.ULTRA_HIGH)}

    def encode_needs(image: ImageInfo, options: Options) -> float:
        return encode_bytes(image, options, None)

    return "\n\n".join(
        [
            _largest("RefineMemory", parameters["RefineMemory"]["AllowedValues"], refined, refine_bytes),
            _largest("EncodeMemory", parameters["EncodeMemory"]["AllowedValues"], encoded, encode_needs),
        ]
    )


def _largest(
    parameter: str, sizes_mb: Iterable[int], columns: dict[str, _Case], needs: Callable[[ImageInfo, _Case], float]
) -> str:
    """Return the megapixels of the largest JPEG, and of the largest image of another format if that is smaller."""

    def most(size_mb: int, format_: str, case: _Case) -> int:
        most_mp = MAX_PIXELS // 1_000_000
        fits = [n for n in range(most_mp + 1) if needs(ImageInfo(format_, n * 1000, 1000, 0), case) <= size_mb << 20]
        return max(fits, default=0)

    def cell(size_mb: int, case: _Case) -> str:
        jpeg, other = (most(size_mb, format_, case) for format_ in ("jpeg", "png"))
        return str(jpeg) if jpeg == other else f"{jpeg} ({other})"

    rows = [[f"`{size}`", *(cell(size, case) for case in columns.values())] for size in sizes_mb]
    return table([f"`{parameter}`", *columns], rows)


def _stack(path: Path) -> str:
    source = yaml_parse(path.read_text())
    parts = [f"## {path.relative_to(ROOT)}", str(source.get("Description", ""))]
    parameters = [
        [f"`{name}`", _code(one.get("Default", "")), _allowed(one), str(one.get("Description", ""))]
        for name, one in source.get("Parameters", {}).items()
    ]
    if parameters:
        parts += ["### Parameters", table(["Parameter", "Default", "Allowed", "Description"], parameters)]
    outputs = [[f"`{name}`", str(one.get("Description", ""))] for name, one in source.get("Outputs", {}).items()]
    if outputs:
        parts += ["### Outputs", table(["Output", "Description"], outputs)]
    return "\n\n".join(part for part in parts if part)


def _code(value: object) -> str:
    return f"`{value}`" if str(value) else ""


def _allowed(parameter: dict[str, Any]) -> str:
    if values := parameter.get("AllowedValues"):
        return ", ".join(f"`{value}`" for value in values)
    least, most = parameter.get("MinValue"), parameter.get("MaxValue")
    if least is not None and most is not None:
        return f"{least} to {most}"
    if least is not None:
        return f"{least} or more"
    return f"up to {parameter['MaxLength']} characters" if "MaxLength" in parameter else ""


def metrics() -> str:
    """Return the table of metrics."""
    rows = [
        [f"`{one.name}`", one.unit, "; ".join(map(_dimensions, one.dimension_sets)), one.description]
        for one in METRICS.values()
    ]
    return table(["Metric", "Unit", "Dimensions", "Description"], rows)


def _dimensions(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def errors() -> str:
    """Return the table of errors that a state or a failure report can name."""
    rows = [
        [f"`{one.__name__}`", "permanent" if issubclass(one, PermanentError) else "transient", _first_line(one)]
        for one in pipeline_errors()
    ]
    return table(["Error", "Kind", "Meaning"], rows)


def pipeline_errors() -> list[type[BackgroundRemoverError]]:
    """Return the leaf classes that Step Functions matches by name."""
    bases = PermanentError, TransientError
    modules = core.errors, functions.contracts.errors
    return [one for module in modules for one in _leaves(module) if issubclass(one, bases)]


def cli_errors() -> str:
    """Return the table of errors that ``pbr`` prints besides those of the pipeline."""
    return table(["Error", "Meaning"], [[f"`{one.__name__}`", _first_line(one)] for one in _leaves(client.errors)])


def url_errors() -> str:
    """Return the table of errors of URLs that callers give."""
    rows = [[f"`{one.__name__}`", _first_line(one)] for one in _leaves(functions.runtime.safe_http)]
    return table(["Error", "Meaning"], rows)


def _leaves(module: Any) -> list[type[BackgroundRemoverError]]:
    classes = [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, BackgroundRemoverError) and one.__module__ == module.__name__
    ]
    return [one for one in classes if not one.__subclasses__() and one is not BackgroundRemoverError]


def _first_line(one: type[BackgroundRemoverError]) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", inspect.getdoc(one) or "").partition("\n\n")[0]


def codes() -> str:
    """Return the table of problem codes of the API's own routes, with the errors that lead to each."""
    found: dict[tuple[int, str], list[str]] = {}
    for path in sorted(API.rglob("*.py")):
        if path.name == "removebg.py":  # answers in remove.bg's own form
            continue
        for status, code, error in _codes(ast.parse(path.read_text())):
            names = found.setdefault((status, code), [])
            names += [error] if error and error not in names else []
    rows = [
        [str(status), f"`{code}`", ", ".join(f"`{one}`" for one in names)]
        for (status, code), names in sorted(found.items())
    ]
    return table(["Status", "Code", "Error"], rows)


def _codes(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield status, code and error class: of a table from error to answer, and of problems that are raised directly."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(value, ast.Tuple) and (answer := _answer(value.elts)):
                    yield *answer, key.attr if isinstance(key, ast.Attribute) else ""
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
            by_name = {one.arg: one.value for one in node.keywords}
            if answer := _answer([*node.args, *(by_name[name] for name in ("status", "code") if name in by_name)]):
                yield *answer, ""


def _answer(values: list[ast.expr]) -> tuple[int, str] | None:
    match [one.value for one in values[:2] if isinstance(one, ast.Constant)]:
        case [int(status), str(code)]:
            return status, code
    return None


PARTS: Final[dict[str, Callable[[], str]]] = {
    "options": options,
    "presets": presets,
    "cli": cli,
    "template": template,
    "memory": memory,
    "metrics": metrics,
    "errors": errors,
    "cli-errors": cli_errors,
    "url-errors": url_errors,
    "codes": codes,
}


if __name__ == "__main__":
    main()
