"""Errors are feedback: the model reads what a person at a terminal would."""

from __future__ import annotations

from typing import Any

import pytest


def test_a_traceback_has_the_programs_own_lines_and_no_other_frames(judge: Any) -> None:
    result = judge.run("def f(n):\n    return 1 / n\n\nprint('before')\nf(0)\n")
    assert result["stdout"] == "before\n"
    assert result["exception"] == "ZeroDivisionError"
    assert (result["run_success"], result["reason"], result["retryable"]) == (False, "", False)
    lines = result["stderr"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1:3] == ['  File "<code>", line 5, in <module>', "    f(0)"]
    assert '  File "<code>", line 2, in f' in lines and "    return 1 / n" in lines
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert result["stderr"].count("File ") == 2


def test_a_syntax_error_shows_its_line(judge: Any) -> None:
    result = judge.run("x = 1\nprint(x\n")
    assert result["exception"] == "SyntaxError"
    assert 'File "<code>", line 2' in result["stderr"] and "print(x" in result["stderr"]
    assert "Traceback" not in result["stderr"]


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("r = max(\n    1,\n    1 / 0,\n)", ['  File "<code>", line 3, in <module>', "    1 / 0,"]),
        ('a = 1\ns = """\nx\n"""\nf(\n    1,\n)', ['  File "<code>", line 5, in <module>', "    f("]),
        (
            "x = 1\nexec('y = 1\\n1 / 0')",
            ['  File "<code>", line 2, in <module>', '  File "<string>", line 2, in <module>'],
        ),
        (
            "import threading\ndef f():\n    1 / 0\nt = threading.Thread(target=f)\nt.start()\nt.join()",
            ['  File "<code>", line 3, in f', "ZeroDivisionError: division by zero"],
        ),
        (
            "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    1 / 0\nasyncio.run(f())",
            ['  File "<code>", line 5, in <module>', '  File "<code>", line 4, in f'],
        ),
        ("\n\n\ndef f(:\n    pass", ['  File "<code>", line 4', "    def f(:"]),
        ("if True:\nprint(1)", ['  File "<code>", line 2', "    print(1)"]),
        ('x = """\n\n', ['  File "<code>", line 1']),
        ("try:\n    1 / 0\nfinally:\n    pass", ['  File "<code>", line 2, in <module>']),
    ],
)
def test_line_numbers_are_exact_everywhere(judge: Any, program: str, lines: list[str]) -> None:
    shown = judge.run(program)["stderr"].splitlines()
    places = [shown.index(line) for line in lines]
    assert places == sorted(places)


def test_a_missing_module_lists_what_is_installed_in_the_last_line(judge: Any) -> None:
    result = judge.run("x = 1\nimport nosuchmodule")
    assert result["exception"] == "ModuleNotFoundError" and '  File "<code>", line 2' in result["stderr"]
    last = result["stderr"].splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: No module named 'nosuchmodule' (installed")
    named = last.partition("library: ")[2].rstrip(")").split(", ")
    assert {"numpy", "sympy"} <= set(named)
    assert judge.prints(f"import importlib.util as u\nprint(all(map(u.find_spec, {named})))") == "True\n"
    assert "installed" not in judge.run("import numpy.nosuchmodule")["stderr"]
    assert (
        "installed"
        not in judge.run("try:\n    import nosuch\nexcept ImportError as e:\n    print(e)")["stdout"]
    )


def test_a_chained_exception_shows_both_causes(judge: Any) -> None:
    result = judge.run("try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e")
    assert result["exception"] == "ValueError"
    assert "KeyError: 'k'" in result["stderr"] and "direct cause" in result["stderr"]


@pytest.mark.parametrize(
    ("program", "status_ok", "exception"),
    [
        ("raise SystemExit", True, None),
        ("import sys; sys.exit(0)", True, None),
        ("import sys; sys.exit(2)", False, None),
        ("import sys; sys.exit('why')", False, None),
        ("import os; os._exit(0)", True, None),
        ("raise KeyboardInterrupt", False, "KeyboardInterrupt"),
        ("class Odd(Exception): pass\nraise Odd", False, "Odd"),
        ("import nosuchmodule", False, "ModuleNotFoundError"),
        ("def f(): f()\nf()", False, "RecursionError"),
        ("import os; os.abort()", False, None),
    ],
)
def test_each_way_to_end_is_told_apart(
    judge: Any, program: str, status_ok: bool, exception: str | None
) -> None:
    result = judge.run(program)
    assert (result["run_success"], result["exception"]) == (status_ok, exception)


def test_a_signal_that_ends_the_program_is_named(judge: Any) -> None:
    assert "SIGSEGV" in judge.run("import os; os.kill(os.getpid(), 11)")["stderr"]


def test_a_program_without_output_gets_empty_output(judge: Any) -> None:
    result = judge.run("x = 1")
    assert (result["success"], result["stdout"], result["stderr"]) == (True, "", "")


@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("1 + 1", "2\n"),
        ("x = 3\nx", "3\n"),
        ("'a'", "'a'\n"),
        ("None", ""),
        ("print(1)", "1\n"),
        ("print(1)\n2", "1\n2\n"),
        ("x = 1", ""),
        ("5;", ""),
        ("for i in range(2): i", ""),
        ("from __future__ import annotations\ndef f(x: nope): return 1\nf(0)", "1\n"),
        ("", ""),
        ("# only a comment", ""),
    ],
)
def test_echo_last_shows_the_last_value_once_as_a_notebook_does(
    judge: Any, program: str, output: str
) -> None:
    assert judge.prints(program, options={"echo_last": "1"}) == output


def test_echo_last_keeps_line_numbers(judge: Any) -> None:
    result = judge.run("x = 0\n\n1 / x", options={"echo_last": "1"})
    assert '"<code>", line 3, in <module>' in result["stderr"] and "1 / x" in result["stderr"]


def test_without_echo_last_no_value_is_shown(judge: Any) -> None:
    assert judge.prints("1 + 1") == ""


def test_a_timeout_returns_what_was_printed_and_says_where_the_program_was(judge: Any) -> None:
    program = "print('start', end='')\ndef spin():\n    while True: pass\nspin()"
    result = judge.run(program, options={"timeout": "0.5"})
    assert result["stdout"] == "start"
    assert (result["reason"], result["run_success"], result["retryable"]) == ("worker_timeout", False, False)
    assert "0.5 s" in result["stderr"] and "line 3, in spin" in result["stderr"]
    assert "while True: pass" in result["stderr"]


def test_a_timeout_inside_one_long_c_call_still_returns_what_was_printed(judge: Any) -> None:
    result = judge.run("print('start')\nx = 7 ** (10 ** 9)", options={"timeout": "0.5"})
    assert result["stdout"] == "start\n"
    assert "line 2" in result["stderr"] and "7 ** (10 ** 9)" in result["stderr"]


@pytest.mark.parametrize(
    ("program", "place"),
    [
        ("x = 1\nl = [i for i in iter(int, 1)]", "line 2, in <listcomp>:\n    l = [i for i in iter(int, 1)]"),
        ("open('m.py', 'w').write('while True: pass')\n\nimport m", "line 3:\n    import m"),
        ("import re\nre.match('(a+)+$', 'a' * 40 + 'b')", "line 2:\n    re.match("),
        ("import time\nprint(\n    time.sleep(\n        9\n    )\n)", "line 3:\n    time.sleep("),
        ("class A:\n    def __del__(self):\n        while True: pass\nA()", "line 3, in __del__"),
        ("import atexit, time\natexit.register(lambda: time.sleep(9))", "line 2, in <lambda>"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(9,)).start()",
            "waiting for its threads to end",
        ),
    ],
)
def test_a_timeout_says_where_the_program_was_wherever_that_is(judge: Any, program: str, place: str) -> None:
    result = judge.run(program, options={"timeout": "0.6"})
    assert result["reason"] == "worker_timeout"
    assert place in result["stderr"]


def test_long_output_keeps_head_and_tail_within_the_limit(judge: Any) -> None:
    stdout = judge.prints("print('first'); print('x' * 100_000); print('last')")
    assert len(stdout) <= 1000
    assert stdout.startswith("first\n") and stdout.endswith("last\n") and "characters left out" in stdout


def test_output_at_the_limit_is_whole(judge: Any) -> None:
    assert judge.prints("print('y' * 999)") == "y" * 999 + "\n"


def test_a_long_traceback_keeps_its_last_line(judge: Any) -> None:
    result = judge.run("import sys\nprint('e' * 5000, file=sys.stderr)\nraise ValueError('the end')")
    assert result["stderr"].endswith("ValueError: the end\n") and len(result["stderr"]) <= 1000


def test_modules_and_idioms_that_models_use_work(judge: Any) -> None:
    assert judge.prints("import numpy as np; print(np.linalg.det(np.eye(3)))") == "1.0\n"
    assert judge.prints("from sympy import *; x = symbols('x'); print(solve(x**2 - 4))") == "[-2, 2]\n"
    assert (
        judge.prints("import os; print(__name__, __file__, os.path.dirname(__file__))")
        == "__main__ <code> \n"
    )
    assert judge.prints("import tempfile; f = tempfile.TemporaryFile(); f.write(b'1'); print(1)") == "1\n"
    assert judge.prints("open('m.py', 'w').write('a = 5'); import m; print(m.a)") == "5\n"
    assert judge.prints("import asyncio\nasync def f(): return 1\nprint(asyncio.run(f()))") == "1\n"
    assert judge.prints("import atexit; atexit.register(print, 'bye')") == "bye\n"
    assert judge.prints("import threading as t; t.Timer(0.05, print, ['later']).start()") == "later\n"
    assert (
        judge.prints(
            "import sys; sys.setrecursionlimit(50000)\ndef f(n): return n and f(n-1)\nprint(f(40000))"
        )
        == "0\n"
    )
    assert (
        judge.prints(
            "from multiprocessing import Pool\ndef f(x): return x * x\n"
            "if __name__ == '__main__':\n    with Pool(2) as p: print(p.map(f, range(3)))"
        )
        == "[0, 1, 4]\n"
    )
    assert (
        judge.prints("import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))).__name__)")
        == "A\n"
    )
    assert (
        judge.prints("import inspect\ndef f(): return 1\nprint(inspect.getsource(f))")
        == "def f(): return 1\n\n"
    )


def test_megabytes_of_stdin_arrive_whole(judge: Any) -> None:
    assert judge.prints("import sys; print(len(sys.stdin.read()))", input="x" * 20_000_000) == "20000000\n"
