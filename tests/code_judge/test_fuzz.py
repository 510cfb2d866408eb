"""Whatever is sent to whatever route, the answer is one that the OpenAPI description declares, and no 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from judge_service import Judge
from schemathesis import GenerationMode, checks
from schemathesis.config import SchemathesisConfig

_EXAMPLES = 12
_CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.positive_data_acceptance,
    checks.unsupported_method,
]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def _operations(judge: Judge) -> Iterator[Any]:
    """Every operation of the description, so also those that were added after this test."""
    checks.load_all_checks()
    schema = schemathesis.openapi.from_dict(judge.get("/openapi.json"), config=SchemathesisConfig())
    schema.config.base_url = judge.url
    for result in schema.get_all_operations():
        yield result.ok()


def _strategies(operation: Any) -> Iterator[Any]:
    yield operation.as_strategy(GenerationMode.POSITIVE)
    if operation.body or operation.query or operation.path_parameters:
        yield operation.as_strategy(GenerationMode.NEGATIVE)


def test_every_route_answers_as_its_description_says(judge: Judge, session: requests.Session) -> None:
    tried = []
    for operation in _operations(judge):
        for strategy in _strategies(operation):

            @hypothesis.settings(
                max_examples=_EXAMPLES,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=strategy)
            def probe(case: Any) -> None:
                case.call_and_validate(session=session, checks=_CHECKS, timeout=30)

            probe()
        tried.append(operation.label)
    assert {"POST /run", "POST /judge/long-batch", "GET /status", "GET /metrics"} <= set(tried)
