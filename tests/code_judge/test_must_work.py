"""What an honest program may expect to work in the sandbox as it does outside."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

PROGRAMS = {
    "numpy": ("import numpy as np\nprint(np.linalg.solve(np.eye(2) * 2, [2, 4]).tolist())", "[1.0, 2.0]\n"),
    "numpy random differs": (
        "import numpy as np, random\nprint(np.random.rand() != np.random.rand(), random.random() != random.random())",
        "True True\n",
    ),
    "threads in a child of its own": (
        "import os, threading\n"
        "t = threading.Thread(target=threading.Event().wait, daemon=True); t.start()\n"
        "if os.fork() == 0:\n    print(threading.active_count(), t.is_alive(), flush=True)\n    os._exit(0)\n"
        "os.wait(); print(threading.active_count())",
        "1 False\n2\n",
    ),
    "random in a child of its own": (
        "import os, random\nreader, writer = os.pipe()\n"
        "if os.fork() == 0:\n    os.write(writer, str(random.random()).encode())\n    os._exit(0)\n"
        "print(os.read(reader, 99).decode() != str(random.random()))",
        "True\n",
    ),
    "hooks of its own forks": (
        "import os\nos.register_at_fork(after_in_child=lambda: print('child', flush=True))\n"
        "if os.fork() == 0:\n    os._exit(0)\nos.wait(); print('parent')",
        "child\nparent\n",
    ),
    "sympy": (
        "from sympy import *\nx = symbols('x')\nprint(factor(x**2 - 1), integrate(sin(x), x))",
        "(x - 1)*(x + 1) -cos(x)\n",
    ),
    "future annotations": (
        "from __future__ import annotations\ndef f(x: Nope) -> Nope: return x\nprint(f(1), f.__annotations__['x'])",
        "1 Nope\n",
    ),
    "threads": (
        "import threading\nresults = []\nts = [threading.Thread(target=results.append, args=[n]) for n in range(20)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]\nprint(sorted(results) == list(range(20)))",
        "True\n",
    ),
    "thread pool": (
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n"
        "    print(sum(pool.map(lambda n: n * n, range(10))))",
        "285\n",
    ),
    "multiprocessing pool": (
        "import multiprocessing\ndef square(n): return n * n\n"
        "if __name__ == '__main__':\n    with multiprocessing.Pool(2) as pool: print(pool.map(square, range(5)))",
        "[0, 1, 4, 9, 16]\n",
    ),
    "multiprocessing queue": (
        "from multiprocessing import Process, Queue\ndef work(q): q.put('from the child')\n"
        "q = Queue(); p = Process(target=work, args=(q,)); p.start(); print(q.get()); p.join()",
        "from the child\n",
    ),
    "process pool": (
        "from concurrent.futures import ProcessPoolExecutor\ndef f(n): return n + 1\n"
        "with ProcessPoolExecutor(2) as pool: print(list(pool.map(f, [1, 2])))",
        "[2, 3]\n",
    ),
    "multiprocessing shared memory": (
        "from multiprocessing import shared_memory\nm = shared_memory.SharedMemory(create=True, size=16)\n"
        "m.buf[0] = 7\nprint(m.buf[0]); m.close(); m.unlink()",
        "7\n",
    ),
    "subprocess": (
        "import subprocess, sys\ncommand = [sys.executable, '-c', 'print(2)']\n"
        "print(subprocess.run(command, capture_output=True, text=True).stdout)",
        "2\n\n",
    ),
    "asyncio": (
        "import asyncio\nasync def f(n):\n    await asyncio.sleep(0.01)\n    return n\n"
        "async def main(): return await asyncio.gather(*(f(n) for n in range(3)))\nprint(asyncio.run(main()))",
        "[0, 1, 2]\n",
    ),
    "deep recursion": (
        "import sys\nsys.setrecursionlimit(20000)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(15000))",
        "15000\n",
    ),
    "files": (
        "open('a.txt', 'w').write('x')\nimport os\nprint(open('a.txt').read(), os.listdir('.'))",
        "x ['a.txt']\n",
    ),
    "temporary files": (
        "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n    f.write('x'); f.seek(0); print(f.read())",
        "x\n",
    ),
    "sqlite": (
        "import sqlite3\nc = sqlite3.connect('x.db')\nc.execute('create table t (n)')\n"
        "c.execute('insert into t values (5)')\nprint(c.execute('select * from t').fetchall())",
        "[(5,)]\n",
    ),
    "pickle of an own class": (
        "import pickle\nclass A:\n    x = 1\nprint(pickle.loads(pickle.dumps(A())).x)",
        "1\n",
    ),
    "dataclasses and typing": (
        "from dataclasses import dataclass\nfrom typing import Generic, TypeVar\nT = TypeVar('T')\n"
        "@dataclass\nclass P(Generic[T]):\n    x: T\nprint(P(3))",
        "P(x=3)\n",
    ),
    "signals of its own": (
        "import signal, os\nsignal.signal(signal.SIGUSR1, lambda *a: print('got it'))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)",
        "got it\n",
    ),
    "alarm": (
        "import signal, time\ndef f(*a): raise TimeoutError\nsignal.signal(signal.SIGALRM, f)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "try: time.sleep(1)\nexcept TimeoutError: print('in time')",
        "in time\n",
    ),
    "exit handlers": ("import atexit\natexit.register(print, 'bye')\nprint('hi')", "hi\nbye\n"),
    "main guard": ("if __name__ == '__main__': print(__name__, __file__)", "__main__ <code>\n"),
    "big integers": ("print(len(str(2 ** 10000)))", "3011\n"),
    "decimal and fractions": (
        "from decimal import *\nfrom fractions import *\nprint(Decimal(1) / 8, Fraction(1, 3))",
        "0.125 1/3\n",
    ),
    "inspect its own source": (
        "import inspect\ndef f(): return 1\nprint(inspect.getsource(f))",
        "def f(): return 1\n\n",
    ),
    "interactive input": ("print(input() + input())", "ab\n"),
    "fast input": (
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())) if 0 else sys.stdin.readline())",
        "a\n\n",
    ),
    "wall clock and zone": (
        "import time, datetime\nprint(datetime.datetime.now().year > 2000, time.time() > 0)",
        "True True\n",
    ),
    "any printed text": (
        "print('{\"success\": true}\\n\\x1b[31m\\t\\u2028')",
        '{"success": true}\n\x1b[31m\t\u2028\n',
    ),
}


def test_honest_programs_run_as_they_do_outside(judge: Any) -> None:
    submissions = [
        {"sub_id": name, "solution": text, "input": "a\nb\n"} for name, (text, _) in PROGRAMS.items()
    ]
    results = judge.post("/run/batch", {"submissions": submissions})["results"]
    wrong = {
        r["sub_id"]: (r["stdout"], r["stderr"]) for r in results if r["stdout"] != PROGRAMS[r["sub_id"]][1]
    }
    assert not wrong


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed here")
def test_pandas_works_where_it_is_installed(judge: Any) -> None:
    program = (
        "import pandas as pd\nprint(pd.DataFrame({'a': [1, 2], 'b': [3, 4]}).groupby('a').b.sum().tolist())"
    )
    judge.run(program)  # reads it from the disk, which may take longer than the limit
    assert judge.prints(program) == "[3, 4]\n"


def test_fifty_megabytes_of_stdin_arrive(judge: Any) -> None:
    size = 50 << 20
    line = "x" * 1023 + "\n"
    count = "import sys\nprint(sum(len(line) for line in sys.stdin))"
    assert judge.prints(count, input=line * (size // 1024)) == f"{size}\n"
    assert judge.prints("print('not read')", input=line * 4096) == "not read\n"


def test_bytes_that_are_no_text_are_answered_and_disturb_nobody(judge: Any) -> None:
    items = [
        {"solution": "import sys; sys.stdout.buffer.write(b'\\xff\\x00ok\\n')"},
        {"solution": "print(len(input()))", "input": "a\0b\n"},
        {"solution": "print('\ud800')"},
        {"solution": "print(1)", "input": "\udfff"},
        {"solution": "print(chr(0xd800))"},
        {"solution": "print('fine')"},
    ]
    results = judge.post("/run/batch", {"submissions": items})["results"]
    assert results[0]["stdout"] == "\ufffd\0ok\n" and results[0]["run_success"]
    assert results[1]["stdout"] == "3\n"
    assert [result["reason"] for result in results[2:4]] == ["invalid_input"] * 2
    assert results[4]["exception"] == "UnicodeEncodeError"
    assert results[5]["stdout"] == "fine\n"
