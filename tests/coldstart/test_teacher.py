"""The teacher's programs do what they are for under real execution, and its habits show in its conversations."""

import difflib
import random

import pytest

from cleaner.coldstart.chat_format import parse_turn
from cleaner.coldstart.episodes import Episode, Observation, play, statistics
from cleaner.coldstart.slips import SLIPS, dead_ends, slip
from cleaner.coldstart.solutions import next_programs, right_programs
from cleaner.coldstart.teacher import Habits, Teacher, check_habits
from cleaner.data.tasks import TASKS, draw, select_tasks

PROBLEMS = draw(list(TASKS.values()), 60, seed=11)
CHAINED = draw(select_tasks(["gcd_chain", "inverse_chain"]), 40, seed=11)
TEMPTING = draw(select_tasks(["coprime"]), 40, seed=11)


def test_right_programs_print_the_answer_and_nothing_else(execute):
    cases = [(problem, program) for problem in PROBLEMS for program in right_programs(problem)]
    for (problem, program), seen in zip(cases, execute([p.code for _, p in cases]), strict=True):
        assert (seen.ok, seen.text) == (True, problem.answer), program.code


def test_every_slip_occurs_and_makes_its_program_fail(execute):
    rng = random.Random(0)
    cases = [slip(p.code, rng) for problem in PROBLEMS for p in right_programs(problem) for _ in range(6)]
    cases = list(dict.fromkeys(cases))
    assert {name for name, _ in cases} == set(SLIPS)
    for (name, code), seen in zip(cases, execute([code for _, code in cases]), strict=True):
        assert not seen.ok, f"{name}: {code}"


def test_dead_ends_fail(execute):
    programs = [program for problem in PROBLEMS for program in dead_ends(problem)]
    for program, seen in zip(programs, execute([p.code for p in programs]), strict=True):
        assert not seen.ok, program.code


def test_repairs_look_like_the_failure_and_unlike_it(execute):
    """Both kinds of repair occur at the default threshold: similarity of the two programs at least 0.5, and below."""
    shallow = deep = 0
    for episode in play(Teacher(Habits(), seed=1), PROBLEMS * 4, execute):
        codes = [parse_turn(m["content"]).code for m in episode.messages if m["role"] == "assistant"]
        if len(episode.calls) > 1 and not episode.calls[0] and episode.calls[-1]:
            ratio = difflib.SequenceMatcher(None, codes[0], codes[len(episode.calls) - 1]).ratio()
            shallow, deep = shallow + (ratio >= 0.5), deep + (ratio < 0.5)
    assert shallow > 20
    assert deep > 10


def test_habits_show_in_the_conversations(execute):
    seen = statistics(play(Teacher(Habits(), seed=2), PROBLEMS * 10, execute))
    assert seen["first_call_failure"] == pytest.approx(0.6, abs=0.08)
    assert seen["repair_rate"] == pytest.approx(0.5, abs=0.08)
    assert seen["used_tool"] == pytest.approx(0.96, abs=0.03)
    assert seen["valid_format"] == seen["answered"] == 1.0
    assert seen["accuracy_without_failure"] == 1.0


def test_programs_of_a_chain_print_the_answer_when_followed_and_no_slip_gets_through(execute):
    rng = random.Random(0)
    for problem in CHAINED:
        seen: list[tuple[bool, str]] = []
        while programs := next_programs(problem, seen):
            program = rng.choice(programs)
            right, slipped = execute([program.code, slip(program.code, rng)[1]])
            assert not slipped.ok
            assert right.ok or "not invertible" in right.text, program.code
            seen.append((right.ok, right.text))
        assert seen[-1] == (True, problem.answer)
        assert sum(ok for ok, _ in seen) == 2
    assert any("not invertible" in text for text in execute_failures(execute))


def execute_failures(execute):
    """What the first programs for the chained problems fail with."""
    first = [next_programs(problem)[0].code for problem in CHAINED]
    return [seen.text for seen in execute(first) if not seen.ok]


def test_a_teacher_that_never_slips_explores_and_is_always_right(execute):
    careful = Habits(first_failure=0.0, give_up=0.0, no_tool=0.0, max_calls=6)
    for episode in play(Teacher(careful, seed=4), CHAINED, execute, careful.max_calls):
        assert episode.is_right
        assert episode.calls[-2:] == [True, True]


def test_tempting_problems_are_right_by_program_and_often_by_guess(execute):
    cases = [(problem, program) for problem in TEMPTING for program in right_programs(problem)]
    for (problem, program), seen in zip(cases, execute([p.code for _, p in cases]), strict=True):
        assert (seen.ok, seen.text) == (True, problem.answer), program.code
    for problem in TEMPTING:
        assert not any(seen.ok for seen in execute([program.code for program in dead_ends(problem)]))
    assert 0.5 < sum(problem.answer == "True" for problem in TEMPTING) / len(TEMPTING) < 0.9


def test_the_same_seed_writes_the_same_conversations(execute):
    first, second = (play(Teacher(Habits(), seed=3), PROBLEMS, execute) for _ in range(2))
    assert [e.messages for e in first] == [e.messages for e in second]


def test_probabilities_outside_0_and_1_are_refused():
    with pytest.raises(ValueError, match=r"repair must be in \[0, 1\], got 1.5"):
        check_habits(Habits(repair=1.5))


class Script:
    """A policy that says the same lines in every conversation."""

    def __init__(self, *lines):
        self.lines = iter(lines)

    def __call__(self, episodes):
        return [next(self.lines)] * len(episodes)


def fails(programs):
    return [Observation("NameError: name 'x' is not defined (line 1)", False) for _ in programs]


def test_an_episode_ends_with_an_answer_a_malformed_call_or_too_many_calls():
    call = '<tool_call>\n{"name": "code_interpreter", "arguments": {"code": "x"}}\n</tool_call>'
    problem = PROBLEMS[0]
    (answered,) = play(Script(call, f"\\boxed{{{problem.answer}}}"), [problem], fails)
    assert (answered.calls, answered.is_right, answered.malformed) == ([False], True, 0)
    (malformed,) = play(Script("<tool_call>nonsense"), [problem], fails)
    assert (malformed.calls, malformed.is_right, malformed.malformed) == ([], False, 1)
    (exhausted,) = play(Script(call, call, call), [problem], fails, max_calls=2)
    assert (exhausted.calls, exhausted.final_text, exhausted.finished) == ([False, False], None, True)


def test_statistics_count_attempts_after_failures():
    def episode(*calls):
        return Episode(PROBLEMS[0], calls=list(calls))

    seen = statistics([episode(True), episode(False, True), episode(False, False, False, True), episode()])
    assert seen["first_call_failure"] == pytest.approx(2 / 3)
    assert seen["repair_rate"] == pytest.approx(2 / 4)
    assert seen["recovered"] == 1.0
    assert seen["used_tool"] == 0.75
