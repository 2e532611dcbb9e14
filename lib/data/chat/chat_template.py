"""Chat templates: the bundled ones, and a jinja environment that renders as transformers does."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.utils

from lib.data.chat.template_bounds import BoundedSandbox, bounded
from lib.settings.errors import InputError
from lib.settings.suggestions import did_you_mean

# What `render` raises, and what code raises that looks for the answers in its text.
TEMPLATE_ERRORS = (jinja2.TemplateError, ValueError, TypeError, LookupError)
_FOLDER = Path(__file__).parent / "templates"


def bundled_templates() -> tuple[str, ...]:
    """Names of the templates that come with this project."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.jinja")))


def find_template(name: str) -> str:
    """The source of a bundled template or of a jinja file. InputError with the bundled names for others."""
    bundled = bundled_templates()
    if name in bundled:
        return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError.of(
            where="settings",
            key="SFT_CHAT_TEMPLATE",
            value=name,
            expected=f"a bundled template ({', '.join(bundled)}) or a jinja file that exists",
            remedy=f"{did_you_mean(name, bundled)} Without this key the tokenizer's own is used.".strip(),
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_template(name, f"it cannot be read: {error}") from error


def chosen_template(name: str) -> str:
    """The source of SFT_CHAT_TEMPLATE. InputError as `find_template`, and where it is not valid jinja."""
    source = find_template(name)
    compile_template(source, name)
    return source


@lru_cache(maxsize=16)
def compile_template(source: str, name: str = "") -> jinja2.Template:
    """The template in a sandbox with the settings, filters and globals that transformers gives it.

    Raises InputError, with its `name` where it has one, when the source is not valid jinja.
    """
    environment = BoundedSandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_Dict(), namespace=_Namespace
    )
    try:
        with bounded():  # constant expressions are computed here already
            return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise _bad_template(name or source[:80], f"line {error.lineno}: {error.message}") from error
    # Python's compiler, and what constant expressions raise.
    except Exception as error:
        raise _bad_template(name or source[:80], f"{type(error).__name__}: {error}") from error


def render(
    template: jinja2.Template,
    messages: Sequence[Mapping[str, str]],
    names: Mapping[str, object],
    *,
    add_generation_prompt: bool,
) -> str:
    """The conversation as text. `names` are what the template knows besides: the special tokens, and whatever
    takes the place of one of the environment's globals. Raises jinja2.TemplateError when it refuses, and when
    it takes more time or memory than it may."""
    try:
        with bounded():
            return template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **names,
            )
    except jinja2.TemplateError:
        raise
    # A template is a program from elsewhere: whatever its expressions raise is its refusal.
    except Exception as error:
        raise jinja2.TemplateRuntimeError(f"{type(error).__name__}: {error}") from error


def _bad_template(value: str, reason: str) -> InputError:
    return InputError.of(
        where="chat template",
        key="SFT_CHAT_TEMPLATE",
        value=value,
        expected=f"a jinja chat template ({reason})",
        remedy=f"mend it, or use a bundled one: {', '.join(bundled_templates())}",
    )


class _GenerationBlock(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %} marks an assistant's answer; rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 (jinja declares the attribute so)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict` without the attributes of the class, by which a template could leave the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """A namespace that takes no underscore names, by which a template could leave the sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        for name in dict(*rest, **kwargs):
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, *rest, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template may not set {name!r} on a namespace")


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without the HTML escapes of jinja's own filter."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
