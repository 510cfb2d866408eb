"""Equal programs give equal observations: addresses in reprs are blanked, numbers that a program computes are not."""

from cleaner.tools.observation import observation_text


def test_addresses_in_default_reprs_are_the_same_in_every_run() -> None:
    texts = {
        observation_text({"run_success": True, "stdout": f"<generator object <genexpr> at {hex(address)}>\n"})
        for address in (0x7FBBE4F82A40, 0x7F7FF7C1EA40)
    }
    assert texts == {"<generator object <genexpr> at 0x...>"}


def test_an_error_message_with_an_address_is_the_same_in_every_run() -> None:
    reply = {"run_success": False, "stderr": "TypeError: <function f at 0x7f00> is not iterable"}
    assert observation_text(reply) == "TypeError: <function f at 0x...> is not iterable"


def test_hexadecimal_results_are_left_alone() -> None:
    assert observation_text({"run_success": True, "stdout": "0xff\nat 0x1f"}) == "0xff\nat 0x1f"
