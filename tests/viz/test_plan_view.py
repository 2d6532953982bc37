"""The browser's replay of a plan equals `plan_chunks`, number by number and word by word."""

import json
import random
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import reformer_viz
from reformer_core.bucketing import plan_chunks
from reformer_viz import explore_bucketing, measure_bucketing
from reformer_viz.figures.bucketing import LOOK
from reformer_viz.measure.bucketing import MOST_PAIRWISE, SEVERAL
from reformer_viz.widgets.bucketing import BucketingView
from reformer_viz.widgets.call import literal
from reformer_viz.widgets.panel import _compact, compact_script, scripts_of

WIDGETS = Path(reformer_viz.__file__).parent / "widgets"
N_PLANS, N_DESCRIBED, MOST_CELLS = 1000, 120, 6

# Runs in Node and in a page alike: replays what it is given, and returns what it found.
REPLAY = """
function replay(cases) {
  return cases.map(shipped => {
    const data = opened(shipped);
    const plans = data.buckets.map(buckets => planRound(buckets, data));
    const numbers = plans.map(p => [p.order, p.slot, p.first, p.last].map(xs => [...xs]));
    if (!data.described) return { numbers };
    const kinds = plans.map((_, round) => kindsOf(plans, data, round));
    return {
      numbers,
      kinds: kinds.map(of => [...of]),
      words: plans.map((_, round) => [null, ...data.buckets[0].keys()].map(
        token => describe(plans, data, round, token))),
      bins: plans.map((_, round) => [true, false].map(sorted => {
        const { seen, bucket, elsewhere } = binned(plans, data, round, sorted, data.cells);
        return [seen, bucket, elsewhere].map(of => [...of]);
      })),
    };
  });
}
"""


SCRIPT = "\n".join([compact_script("letters.js"), compact_script("plan_cells.js"), REPLAY])


def random_rule(dice):
    causal, window = dice.random() < 0.5, dice.choice(["chunks", "sliding"])
    return {
        "n_buckets": dice.randint(1, 9),
        "chunk_length": dice.randint(1, 12),
        "chunks_before": dice.randint(1, 2) if window == "sliding" else dice.randint(0, 2),
        "chunks_after": 0 if causal else dice.randint(0, 2),
        "window": window,
        "within_bucket": dice.random() < 0.5,
        "causal": causal,
    }


def random_plan(dice):
    rule, rounds, length = random_rule(dice), dice.randint(1, 4), dice.randint(1, 70)
    draw = [[dice.randrange(rule["n_buckets"]) for _ in range(length)] for _ in range(rounds)]
    padding = None
    if dice.random() < 0.4:
        padding = torch.tensor([[dice.random() < 0.3 for _ in range(length)]])
    return plan_chunks(torch.tensor([[draw]]), padding=padding, **rule)


@pytest.fixture(scope="module")
def plans():
    dice = random.Random(0)
    return [random_plan(dice) for _ in range(N_PLANS)]


@pytest.fixture(scope="module")
def bucketings(plans):
    return [
        measure_bucketing(plan, labels=[f"<{i}>" for i in range(plan.slot.shape[-1])])
        for plan in plans
    ]


@pytest.fixture(scope="module")
def replayed(bucketings, tmp_path_factory, request):
    """Return what the script makes of every plan, run by Node or else by the browser."""
    view = BucketingView(lambda: "")
    cases = [
        view.ship(b) | {"described": i < N_DESCRIBED, "cells": min(MOST_CELLS, b.length)}
        for i, b in enumerate(bucketings)
    ]
    return run(SCRIPT, cases, tmp_path_factory.mktemp("node"), request)


def run(script, cases, folder, request):
    if shutil.which("node"):
        return run_in_node(script, cases, folder)
    return run_in_browser(script, cases, request.getfixturevalue("chromium"))


def run_in_node(script, cases, folder):
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "replay.mjs").write_text(
        "import { readFileSync } from 'node:fs';\n"
        + script
        + "\nconst cases = JSON.parse(readFileSync('cases.json', 'utf8'));"
        + "\nprocess.stdout.write(JSON.stringify(replay(cases)));"
    )
    done = subprocess.run(
        ["node", "replay.mjs"], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def run_in_browser(script, cases, chromium):
    # In a thread of its own: the tests of the browser may be driving another one in this one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(drive_browser, script, cases, chromium).result()


def drive_browser(script, cases, chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found = browser.new_page().evaluate(
            f"cases => {{ {script}\nreturn replay(cases); }}", cases
        )
        browser.close()
    return found


def test_the_script_plans_as_core_does(plans, replayed):
    for plan, found in zip(plans, replayed, strict=True):
        for name, place in (("order", 0), ("slot", 1), ("first", 2), ("last", 3)):
            numbers = [round[place] for round in found["numbers"]]
            assert numbers == getattr(plan, name)[0, 0].tolist(), (name, plan.rule())


def test_the_random_plans_are_of_every_sort(plans):
    sorts = {(p.window, p.within_bucket, p.causal, p.padding is None) for p in plans}
    assert len(sorts) == 16
    assert any((plan.first > plan.last).any() for plan in plans)
    assert any(plan.chunks_after == 2 for plan in plans)


def test_the_script_sorts_every_pair_into_the_same_kind(bucketings, replayed):
    for bucketing, found in zip(bucketings[:N_DESCRIBED], replayed, strict=False):
        for round, kinds in enumerate(found["kinds"]):
            assert kinds == bucketing.kinds(round).ravel().tolist()


def test_the_script_sorts_pairs_into_the_same_bins(bucketings, replayed):
    for bucketing, found in zip(bucketings[:N_DESCRIBED], replayed, strict=False):
        cells = min(MOST_CELLS, bucketing.length)
        for round, of_round in enumerate(found["bins"]):
            for in_sorted_order, numbers in zip((True, False), of_round, strict=True):
                bins = bucketing.binned(round, in_sorted_order, cells)
                expected = bins.seen, bins.bucket, bins.elsewhere
                assert numbers == [of.ravel().astype(int).tolist() for of in expected]


def test_the_script_says_the_same_words(bucketings, replayed):
    for bucketing, found in zip(bucketings[:N_DESCRIBED], replayed, strict=False):
        for round, (of_round, *of_tokens) in enumerate(found["words"]):
            assert of_round == bucketing.describe(round)
            for token in range(round, bucketing.length, 9):
                assert of_tokens[token] == bucketing.describe(round, token)


def test_the_page_answers_for_rounds_chunk_length_and_window_as_python_does(
    bucketings, tmp_path, request
):
    dice, view = random.Random(1), BucketingView(lambda: "")
    asked = [(bucketing, random_place(dice, bucketing)) for bucketing in bucketings[:200]]
    script = (
        compact_script("bucketing_view.js")
        + """
function replay(cases) {
  return cases.map(([shipped, asked]) => {
    const data = opened(shipped), place = settle(data, asked), rule = ruleOf(data, place);
    const plans = rule.buckets.map(buckets => planRound(buckets, rule));
    return describe(plans, rule, place.round, place.token);
  });
}"""
    )
    cases = [(view.ship(bucketing), place) for bucketing, place in asked]
    assert run(script, cases, tmp_path, request) == [
        view.describe(bucketing, place | {"step": LOOK}) for bucketing, place in asked
    ]


def random_place(dice, bucketing):
    """Stand somewhere, now and then beyond what there is, under another rule or its own."""
    beyond = bucketing.length + 3
    return {
        "round": dice.randint(0, 5),
        "token": dice.choice([None, dice.randint(0, beyond)]),
        "rounds": dice.choice([None, dice.randint(0, 5)]),
        "chunk_length": dice.choice([None, dice.randint(0, beyond)]),
        "window": dice.choice([None, "chunks", "sliding"]),
        "within_bucket": dice.choice([None, True, False]),
    }


@pytest.mark.browser
def test_both_ways_of_running_the_script_agree(chromium, bucketings, replayed):
    view = BucketingView(lambda: "")
    cases = [
        view.ship(b) | {"described": True, "cells": min(MOST_CELLS, b.length)}
        for b in bucketings[:20]
    ]
    assert run_in_browser(SCRIPT, cases, chromium) == replayed[:20]


def test_the_script_knows_the_same_limits():
    script = (WIDGETS / "plan_cells.js").read_text("utf-8")
    assert f"MOST_PAIRWISE = {MOST_PAIRWISE}, SEVERAL = {SEVERAL};" in script


def test_the_page_writes_the_same_line_of_code_as_the_panel(tmp_path, request):
    places = [{"round": 1, "token": None}, {"window": "sliding", "within_bucket": False}, {}]
    panels = [explore_bucketing(n_tokens=8, place=place) for place in places]
    cases = [{"code": panel._link.data["code"], "place": panel.place} for panel in panels]
    script = (
        compact_script("page.js")
        + """
function replay(cases) { return cases.map(({ code, place }) => codeOf(code, place)); }"""
    )
    odd = {"text": 'a"b\\', "on": True, "all": [1, False]}  # of kinds that other views may have
    cases.append({"code": cases[0]["code"], "place": odd})
    wanted = [panel.code for panel in panels]
    wanted.append(wanted[0].replace(literal(dict(panels[0].place)), literal(odd)))
    assert wanted[-1] != wanted[0]
    assert run(script, cases, tmp_path, request) == wanted


def test_large_numbers_are_written_alike():
    generator = torch.Generator().manual_seed(0)
    panel = explore_bucketing(torch.randn(1500, 4, generator=generator), chunk_length=64)
    assert re.search(r"of 1,124,250 pairs", repr(panel))


def scripts_with_mount():
    """Name the scripts that draw an explorer."""
    return [
        path.name
        for path in sorted(WIDGETS.glob("*.js"))
        if re.search(r"^export (const|function) mount\b", path.read_text("utf-8"), re.MULTILINE)
    ]


@pytest.mark.parametrize("name", scripts_with_mount())
def test_a_stored_script_has_no_comments_and_stays_small(name):
    script = compact_script(name)
    assert "//" not in script
    assert not re.search(r"^(export|import) ", script, re.MULTILINE)
    assert "</script" not in script
    assert len(script) < 40_000  # the microscope's is the longest


def texts_of(script):
    """Return every text of a script, quoted or between the code of a template."""
    texts, braces, start = [], [], 0  # of every template that is open, the braces open in its code
    end = re.compile(r"(?P<quoted>'(?:[^'\\\n]|\\.)*')|[`{}]")
    text_end = re.compile(r"`|\$\{")
    while found := end.search(script, start):
        start, sign = found.end(), found.group()
        if found["quoted"]:
            texts.append(sign)
        elif sign == "{" and braces:
            braces[-1] += 1
        elif sign == "}" and braces and braces[-1]:
            braces[-1] -= 1
        elif sign == "`" or (sign == "}" and braces):
            stop = text_end.search(script, start)
            texts.append(script[start : stop.start()])
            start = stop.end()
            if sign == "}":
                braces.pop()
            if stop.group() == "${":
                braces.append(0)
    return texts


def test_the_texts_of_a_script_are_found():
    script = "a = `x ${b ? `y ${ {c: 'd = e'} } z` : ''} {w}`; f('g`h');"
    assert texts_of(script) == ["x ", "y ", "'d = e'", " z", "''", " {w}", "'g`h'"]


@pytest.mark.parametrize("path", sorted(WIDGETS.glob("*.js")), ids=lambda path: path.name)
def test_a_stored_script_says_what_its_source_says(path):
    source = re.sub(r"(^|\s)// .*$", "", path.read_text("utf-8"), flags=re.MULTILINE)
    said = texts_of(re.sub(r"^(?:import|export) [^;]* from .*$", "", source, flags=re.MULTILINE))
    unindented = [re.sub(r"\n\s*", "\n", text).strip("\n") for text in said]
    assert [text.strip("\n") for text in texts_of(_compact(path.name))] == unindented


@pytest.mark.parametrize("name", scripts_with_mount())
def test_scripts_that_are_stored_together_have_no_name_twice(name, tmp_path, request):
    assert len(scripts_of(name)) > 1
    script = compact_script(name) + "\nfunction replay() { return typeof mount; }"
    assert run(script, [], tmp_path, request) == "function"


def test_a_script_is_stored_after_what_it_imports_and_nothing_is_stored_twice():
    wanted = ["letters.js", "page.js", "plan.js", "plan_view.js", "plan_cells.js"]
    wanted += ["plan_rule.js", "bucketing_view.js"]
    assert scripts_of("bucketing_view.js") == wanted
    script = compact_script("bucketing_view.js")
    assert script.count("function openPage(") == script.count("function planRound(") == 1
