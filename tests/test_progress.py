from __future__ import annotations

import io

import pytest

from onnxprune.progress import Silent, Terminal, on_stderr


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [None, 3])
def test_bars_are_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    stream = _Tty()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    shown = on_stderr()
    assert isinstance(shown, Terminal)
    with shown.step("measuring", total) as advance:
        advance(2)
    assert "measuring" in stream.getvalue()


def test_nothing_is_drawn_in_a_pipe_or_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with on_stderr().step("measuring", 3) as advance:
        advance(1)
    assert stream.getvalue() == ""
    monkeypatch.setattr("sys.stderr", _Tty())
    assert isinstance(on_stderr(quiet=True), Silent)
