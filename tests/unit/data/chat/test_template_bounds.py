"""Templates that would loop for ever, take all memory or leave the sandbox are refused in bounded time."""

import resource
import signal
import threading
import time

import jinja2
import pytest

from lib.data.chat import template_bounds
from lib.data.chat.chat_template import bundled_templates, compile_template, find_template, render
from lib.data.chat.template_bounds import bounded, many_bounded
from lib.settings.errors import InputError

LOOP = "{% for x in r %}"
ENDLESS = {
    "loops in loops": "{% set r = range(100000) %}" + LOOP * 4 + "{% endfor %}" * 4,
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "a text that doubles": "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}",
    "a long text": "{{ messages[0].content * 10**10 }}",
    "a wide column": "{{ messages[0].content | center(10**10) }}",
    "a wide format": "{{ '%10000000000d' | format(messages | length) }}",
    "a long list": "{{ [1] * 10**10 }}",
    "a power": "{{ (messages | length + 8) ** (9 ** 9) }}",
    "a product": "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "digits": "{{ 0.5 | round(10**9, 'floor') }}",
    "a long range": "{{ range(10**9) | list }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}
LEAVING = (
    "{{ cycler.__init__.__globals__.os.system('touch fired') }}",
    "{{ lipsum.__globals__['os'].popen('touch fired').read() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ ('{0.__class__.__init__.__globals__}').format(joiner) }}",
    "{{ strftime_now.__globals__ }}",
    "{{ raise_exception.__globals__['json'].codecs.open('fired', 'w') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ messages[0].update(role='x') }}",
)
MESSAGES = [{"role": "user", "content": "q"}]


def rendered(source: str) -> str:
    return render(compile_template(source), MESSAGES, {}, add_generation_prompt=False)


@pytest.mark.parametrize("name", ENDLESS)
def test_what_takes_too_much_is_refused_in_bounded_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_bounds, "LONGEST_SECONDS", 0.3)
    monkeypatch.setattr(template_bounds, "MOST_BYTES", 2**27)
    before = resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGALRM)
    started = time.thread_time()
    with pytest.raises((jinja2.TemplateError, InputError)):
        rendered(ENDLESS[name])
    assert time.thread_time() - started < 5
    assert (resource.getrlimit(resource.RLIMIT_DATA), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("source", LEAVING)
def test_no_template_leaves_the_sandbox(source: str) -> None:
    """What is out of reach is an error, or undefined, which is written as nothing."""
    try:
        text = rendered(source)
    except jinja2.TemplateError:
        text = ""
    assert text == ""


@pytest.mark.parametrize(
    "source",
    ["{{ " + "(" * 5000 + " }}", "{% if x %}" * 200],
)
def test_a_source_that_cannot_be_compiled_is_an_input_error(source: str) -> None:
    with pytest.raises(InputError, match="a jinja chat template"):
        compile_template(source)


def test_a_conversation_in_a_batch_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test's own, so that a busy machine takes none of that time."""
    monkeypatch.setattr(template_bounds, "LONGEST_SECONDS", 0.2)
    with many_bounded():
        for _ in range(2):
            with pytest.raises(jinja2.TemplateError, match="longer than"):
                rendered(ENDLESS["loops in loops"])
            clock = Clock()
            with monkeypatch.context() as patched:
                patched.setattr(template_bounds, "time", clock)
                for _ in range(3):
                    assert clock.rendered_in(0.15) == "user"
                with pytest.raises(jinja2.TemplateError, match="longer than"):
                    clock.rendered_in(0.25)


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def rendered_in(self, seconds: float) -> str:
        """A conversation that takes so long, at the end of which the timer looks."""
        with bounded():
            text = rendered("{{ messages[0].role }}")
            self.now += seconds
            signal.raise_signal(signal.SIGALRM)
        return text


def test_another_error_of_a_template_is_its_refusal() -> None:
    with pytest.raises(jinja2.TemplateRuntimeError, match="ZeroDivisionError"):
        rendered("{{ 1 // (messages | length - 1) }}")


def test_it_renders_in_another_thread_too() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(rendered("{{ messages[0].content * 2 ** 3 }}")))
    thread.start()
    thread.join()
    assert found == ["qqqqqqqq"]


def test_bounds_cost_little() -> None:
    """They are set for every conversation: a tenth of a millisecond would be felt over 100,000 of them."""
    template = compile_template(find_template(bundled_templates()[0]))
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    started = time.thread_time()
    for _ in range(200):
        render(template, talk, {}, add_generation_prompt=False)
    assert (time.thread_time() - started) / 200 < 0.005
