"""A campaign for each test that asks for one, and a table of counts at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from faults.campaigns import Campaign, seed

_NAME, _TRIED, _PASSED = "campaign", "tried", "passed"


@pytest.fixture
def campaign(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Iterator[Campaign]:
    """Count the cases of a test; it fails in the end if one of them did, or if none was tried."""
    name = f"{request.node.path.stem.removeprefix('test_')}: {request.node.name}"
    made = Campaign(name.replace("test_", ""))
    yield made
    for key, value in ((_NAME, made.name), (_TRIED, made.tried), (_PASSED, made.passed)):
        record_property(key, value)
    if made.failures:
        pytest.fail(
            f"{len(made.failures)} of {made.tried} failed\n" + "\n".join(made.failures[:20]),
            pytrace=False,
        )
    if not made.tried:
        pytest.fail("no case was tried", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how many cases every campaign tried, and how many passed."""
    rows = sorted(set(_rows(terminalreporter)))
    if rows:
        terminalreporter.section(f"campaigns (seed {seed()})")
    for name, tried, passed in rows:
        terminalreporter.write_line(f"{passed:6d} of {tried:6d}  {name}")


def _rows(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, int, int]]:
    for reports in terminalreporter.stats.values():
        for report in reports:
            facts = dict(getattr(report, "user_properties", ()))
            if _NAME in facts and report.when == "teardown":
                yield str(facts[_NAME]), int(facts[_TRIED]), int(facts[_PASSED])
