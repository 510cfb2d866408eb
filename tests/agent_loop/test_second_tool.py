"""A tool that runs no code is repaired like one that does, by the metric that its configuration names."""

import json

import pytest
from scripted_policy import IM_END, assert_aligned, observation, rolled_back

from cleaner.tools.lookup import Lookup

FINAL = "It is iron." + IM_END


def ask(reasoning, arguments):
    """A turn with a call of the look-up tool; `arguments` are an object, or the raw text of one."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return f'{reasoning}<tool_call>\n{{"name": "lookup", "arguments": {text}}}\n</tool_call>{IM_END}'


def call_of(turn):
    return turn[turn.index("<tool_call>") :]


def repaired(script, metric="json", **saar):
    saar = {"similarity_by_tool": {"lookup": metric}, **saar}
    return rolled_back(script, saar, tools=[Lookup({"max_rows": 5})])


def answer(row):
    return observation(json.dumps(row))


NITROGEN = {"resource": "elements", "filters": {"symbol": "N"}, "fields": ["name", "mass"]}
FOUND = answer({"name": "nitrogen", "mass": 14.007})


@pytest.mark.parametrize(
    "wrong, label",
    [
        ({**NITROGEN, "resource": "element"}, "UnknownResource"),
        ({**NITROGEN, "fields": ["name", "weight"]}, "UnknownField"),
        ({**NITROGEN, "limit": "1"}, "format_error"),
        (json.dumps(NITROGEN)[:-1], "format_error"),
    ],
)
def test_a_near_call_is_repaired_shallow(wrong, label):
    failing, good = ask("Let me look: ", wrong), ask("I see: ", NITROGEN)
    run = repaired([failing, good, FINAL])
    assert run.segments() == [(1, "Let me look: "), (2, call_of(good)), (0, FOUND), (1, FINAL)]
    (repair,) = run.repairs
    assert repair["decision"] == "shallow" and repair["similarity"] >= 0.5
    assert repair["failed"]["outcome"]["status"] in ("program_error", "format_error")
    assert run.saar["recovered"] == {label: 1}
    assert_aligned(run)


def test_another_call_is_repaired_deep():
    failing = ask("Planets first: ", {"resource": "planets", "fields": ["weight"], "limit": 3})
    good = ask("No, an element: ", NITROGEN)
    run = repaired([failing, good, FINAL])
    assert run.segments() == [(2, good), (0, FOUND), (1, FINAL)]
    assert run.repairs[0]["decision"] == "deep" and run.repairs[0]["similarity"] < 0.5
    assert_aligned(run)


def test_the_correction_sees_the_error_that_names_the_valid_fields():
    run = repaired([ask("A: ", {**NITROGEN, "fields": ["weight"]}), ask("B: ", NITROGEN), FINAL])
    prompt = run.tokenizer.decode(run.server.requests[1].prompt_ids)
    assert "UnknownField: elements has no field 'weight'; valid: atomic_number, symbol, name, mass" in prompt
    assert "UnknownField" not in run.text


def test_no_rows_is_no_failure():
    turn = ask("Iron: ", {"resource": "elements", "filters": {"name": "iron"}})
    run = repaired([turn, FINAL])
    assert run.segments() == [(1, turn), (0, observation("no rows")), (1, FINAL)]
    assert run.repairs == [] and run.saar["calls"] == 1


def test_the_metric_is_the_tools_own():
    """Two searches that share nothing but their form: alike as characters, not as arguments."""
    wrong = {"resource": "elements", "filters": {"symbol": "Fe"}, "fields": ["heft"], "limit": 5}
    right = {"resource": "planets", "filters": {"name": "Mars"}, "fields": ["position"], "limit": 5}
    script = [ask("A: ", wrong), ask("B: ", right), FINAL]
    decisions = {
        metric: repaired(script, metric).repairs[0]["decision"] for metric in ("difflib", "json", "text")
    }
    assert decisions == {"difflib": "shallow", "json": "deep", "text": "deep"}
    other_tool = rolled_back(script, {"similarity_by_tool": {"run": "json"}}, tools=[Lookup()])
    assert other_tool.repairs[0]["decision"] == "shallow"
    for_all = rolled_back(script, {"similarity": "json"}, tools=[Lookup()])
    assert for_all.repairs[0]["decision"] == "deep"


def test_exhausted_corrections_leave_the_first_call_and_its_error():
    failing = ask("A: ", {"resource": "metals"})
    others = [ask("B: ", {"resource": f"metals {number}"}) for number in range(3)]
    run = repaired([failing, *others, FINAL])
    error = "UnknownResource: no resource 'metals'; valid: countries, elements, planets"
    assert run.segments() == [(1, failing), (0, observation(error)), (1, FINAL)]
    assert run.saar["exhausted"] == {"UnknownResource": 1}
    assert_aligned(run)
