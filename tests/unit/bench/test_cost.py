import re

import pytest

from bench.cost import GOALS_USD, PAGE, PRESENT_USD, chart, goals, render
from client.monthly_cost import VOLUMES, Bulk, Host, bill, cheapest
from functions.contracts.prices import REGIONS

TEXT = PAGE.read_text()
PRICES = REGIONS["us-east-1"]


def number(text: str) -> float:
    return float(text.replace(",", "").removesuffix(" ?"))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def part(name: str) -> str:
    return TEXT.split(f"<!-- cost: {name} -->")[1].split(f"<!-- end of {name} -->")[0]


def rows(text: str) -> list[list[str]]:
    """Return the rows of the tables in a text, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rulers = [index for index, line in enumerate(lines) if line.startswith("| ---")]
    return [cells(line) for index, line in enumerate(lines) if index not in rulers and index + 1 not in rulers]


BILLS = [
    (re.search(r"images, ([\w-]+): \$([\d,.]+), of which \$([\d,.]+)", text), rows(text))
    for text in part("arithmetic").split("<details>")[1:]
]


def test_the_page_is_up_to_date() -> None:
    assert render(TEXT) == TEXT, "run make cost"


def test_the_page_has_a_bill_for_each_host_and_kind_of_bulk_run() -> None:
    assert [found[1] for found, _ in BILLS if found] == [*Host, *Bulk]


@pytest.mark.parametrize(("head", "lines"), BILLS)
def test_quantities_times_prices_are_the_totals(head: re.Match[str], lines: list[list[str]]) -> None:
    usd = 0.0
    for _, _, quantity, price, cost, _ in lines[:-1]:
        assert number(quantity) * number(price) == pytest.approx(number(cost), abs=2e-4, rel=2e-5)
        usd += number(cost)
    assert usd == pytest.approx(number(lines[-1][4]), abs=0.002) == pytest.approx(number(head[2]), abs=0.01)


@pytest.mark.parametrize("lines", [lines for _, lines in BILLS])
def test_the_arithmetic_gives_the_quantities(lines: list[list[str]]) -> None:
    checked = 0
    for _, item, quantity, _, _, text in lines[:-1]:
        if not text or text == "the same, for a month":
            continue
        assert evaluated(text, item) == pytest.approx(number(quantity), rel=2e-3), (item, text)
        checked += 1
    assert checked > 12


def evaluated(text: str, item: str) -> float:
    """Return the value of an arithmetic text as people read it."""
    text = re.sub(r"(\d) ?%", r"\1 / 100", text.replace(",", "")).replace(" of ", " * ").replace(" x ", " * ")
    text = re.sub(r"(\d+) starts \* ([\d.]+) s", r"\1 * \2 / 3600", text)
    text = re.sub(r"for [\d.]+ requests a minute", "", text)
    value = eval(re.sub(r"[A-Za-z]+", "", text))
    return value / 1e9 if "bytes" in text else value


def test_prices_on_the_page_are_those_of_the_table() -> None:
    listed = {(cells[0], cells[1]): number(cells[2]) for cells in rows(part("prices"))}
    by_hand = {
        "state transition of a Standard workflow": 0.025e-3,
        "GB-second, x86": 0.0000166667,
        "PUT, COPY or LIST request": 0.005e-3,
        "custom metric, per month": 0.30,
        "vCPU-hour, x86": 0.04048,
        "g4dn.xlarge, hour": 0.526,
    }
    found = {unit: usd for (_, unit), usd in listed.items()}
    assert {unit: found[unit] for unit in by_hand} == by_hand


def test_monthly_totals_are_those_of_the_bills() -> None:
    table = {line[0].strip("`"): line[1:] for line in rows(part("monthly"))}
    for method in (*Host, *Bulk):
        for cell, volume in zip(table[method], VOLUMES, strict=True):
            for text, hits in zip(cell.split(" / "), (0, 0.2, 0.5), strict=True):
                assert number(text) == pytest.approx(bill(method, volume, hits, PRICES).usd, abs=0.51)
    assert [number(cell) for cell in table["users' present cost"]] == list(PRESENT_USD.values())


def test_the_cheapest_is_the_least_of_its_column() -> None:
    monthly = {
        line[0].strip("`"): [number(cell.split(" / ")[0]) for cell in line[1:]] for line in rows(part("monthly"))
    }
    for index, line in enumerate(rows(part("mix"))):
        for cell, kind in ((line[2], Host), (line[4], Bulk)):
            name, usd = cell.replace("`", "").split(": ")
            assert number(usd) == min(monthly[method][index] for method in kind) == monthly[name][index]


def test_the_verdict_on_each_goal_is_true() -> None:
    for line, (kind, goal) in zip(goals().splitlines(), GOALS_USD.items(), strict=True):
        met = cheapest(kind, 1_000_000, 0, PRICES).usd <= goal
        assert (", met" in line) is met and ("missed by" in line) is not met


def test_the_chart_shows_all_hosts_the_present_cost_and_the_goals() -> None:
    [axis] = chart().axes
    labels = {text.get_text() for text in axis.get_legend().get_texts()}
    assert labels >= {*Host, "bulk: express-10", "users' present cost"}
    assert {text.get_text() for text in axis.texts} == {"goal, single uploads", "goal, bulk runs"}
