"""The page of `egsw-plugin inspect` in a real browser: what it shows, how it is used, and text that wants to break out.

Maps to egsw_plugin/records/inspect.py and page/. Needs Chromium and its driver (.ci/browser installs them).
"""

import json
import math
import os
import re
import shutil

import pytest
import torch
from test_records import gtpo_run, record_of

from egsw_plugin.cli import main
from egsw_plugin.kernels.groups import dense_group_ids
from egsw_plugin.methods.chain import apply
from egsw_plugin.records import Record, inspect, store, whatif

HAS_BROWSER = shutil.which("chromium") and shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not HAS_BROWSER and os.environ.get("BROWSER_TESTS") != "required",
    reason="no chromium and chromedriver here; .ci/browser installs them on Debian",
)
HIT = "window.hit = 1"
HOSTILE = [
    f"<script>{HIT}</script>",
    f"</script><script>{HIT}</script>",
    f"<!-- <script> {HIT}",
    f"</style><script>{HIT}</script>",
    f'<img src="x" onerror="{HIT}">',
    f'"><svg onload="{HIT}">',
    f"javascript:{HIT}",
    "${" + HIT + "}",
    "<iframe src='https://example.com'></iframe><link rel=stylesheet href=https://example.com/a.css>",
    "&lt;b&gt; &amp; '\"`",
    "]]>\\u003c\\",
]
UNSEEN = {
    "\x00": "␀",
    "\u202e": "⟨U+202E⟩",
    "\ud800": "⟨U+D800⟩",
    "\u200b": "⟨U+200B⟩",
    "\n": "↵\n",
    "\t": "⇥\t",
    "\U000e0041": "⟨U+E0041⟩",
}
OTHERS = ["中文", "שלום", "مرحبا", "👩‍👩‍👧"[:1], " leading"]


def with_tokens(record, texts):
    """The record with these texts as its tokens, over and over."""
    rows = []
    for number, row in enumerate(record.rows):
        ids = [(number + t) % len(texts) for t in range(len(row["ids"]))]
        rows.append({**row, "ids": ids, "tokens": [texts[i] for i in ids], "prompt": "".join(texts[:-1])})
    return Record(rows, record.about)


@pytest.fixture(scope="module")
def driver():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1400,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(driver, tmp_path):
    """Opens a page; at the end nothing must have been said on the console, nor asked of a network."""
    path = tmp_path / "page.html"

    def opens(*records, **arguments):
        path.write_text(inspect.page(records, "a run", **arguments), encoding="utf-8")
        driver.get_log("browser"), driver.get_log("performance")
        driver.get(path.as_uri())
        return driver

    yield opens
    assert driver.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    assert urls <= {path.as_uri()}
    assert driver.execute_script("return window.hit === undefined")


def spans_of(driver, column):
    """Text and class of each token of a response; all chunks made."""
    driver.execute_script("document.querySelectorAll('.chunk').forEach(fill)")
    return driver.execute_script(
        "return [...document.querySelectorAll(`[data-column='${arguments[0]}'] span`)]"
        ".map((s) => [s.textContent, s.className, s.childElementCount])",
        column,
    )


def hover(driver, column, i):
    """What the page says of a token that the mouse is over."""
    from selenium.webdriver.common.action_chains import ActionChains

    driver.execute_script("document.querySelectorAll('.chunk').forEach(fill)")
    span = driver.execute_script(
        "const s = spanOf(arguments[0], arguments[1]); s.scrollIntoView({block: 'center', inline: 'center'}); return s",
        column,
        i,
    )
    ActionChains(driver).move_to_element(span).perform()
    return driver.find_element("id", "readout").text


def groups_of(record):
    """As the page orders them: groups as they come, responses by their rewards."""
    uids = dict.fromkeys(row["uid"] for row in record.rows)
    return [sorted((r for r in record.rows if r["uid"] == uid), key=lambda r: -r["reward"]) for uid in uids]


def number(name, text):
    return float(re.search(rf"{name} (-?[\d.e+-]+)", text)[1])


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


@needs_browser
@pytest.mark.parametrize("method,options", [(None, {}), ("egsw", {"temperature": 2.0}), ("gtpo", {"alpha2": 0.2})])
def test_what_is_shown_is_what_was_recorded(opened, method, options):
    record = record_of(3)
    arguments = {"chain": whatif.chain_of(method, options), "seen": method} if method else {}
    driver = opened(record, **arguments)
    rows = record.rows
    if method:  # afresh, through the kernels
        batch = whatif.batch_of(record)
        advantages = apply(arguments["chain"], batch).advantages
        rows = [{**r, "advantage": a[: len(r["ids"])].tolist()} for r, a in zip(rows, advantages, strict=True)]
    for group, responses in enumerate(groups_of(Record(rows, {}))):
        driver.execute_script("state.group = arguments[0]; showGroup()", group)
        titles = [h.text for h in driver.find_elements("css selector", "article h3")]
        for column, row in enumerate(responses):
            outcome = "success" if row["success"] else "failure"
            assert titles[column] == f"{outcome}, reward {row['reward']:.4g}, {len(row['ids'])} tokens"
            found = spans_of(driver, column)
            assert [text for text, *_ in found] == row["tokens"]
            assert ["tool" in kinds for _, kinds, _ in found] == [not own for own in row["policy"]]
        row = responses[0]
        for i in range(0, len(row["ids"]), 5):
            said = hover(driver, 0, i)
            if not row["policy"][i]:
                assert "not the policy's" in said
                continue
            assert number("entropy", said) == pytest.approx(row["entropy"][i], rel=1e-3)
            assert number("log-probability", said) == pytest.approx(row["old_log_prob"][i], rel=1e-3)
            assert number("advantage", said) == pytest.approx(row["advantage"][i], rel=1e-3, abs=1e-6)


@needs_browser
def test_colours_say_where_a_token_stands(opened):
    record = record_of(3)
    driver = opened(record)
    tokens = [
        (h, a, own)
        for row in record.rows
        for h, a, own in zip(row["entropy"], row["advantage"], row["policy"], strict=True)
        if own
    ]
    limit = torch.tensor([h for h, _, _ in tokens if h > 1e-9]).double().quantile(0.99).item()
    row = groups_of(record)[0][0]
    for (_, kinds, _), h, own in zip(spans_of(driver, 0), row["entropy"], row["policy"], strict=True):
        if own:
            assert kinds == f"s{min(8, int(h / limit * 8 + 0.5))}"
    driver.execute_script("setColour('change')")
    assert {kinds for _, kinds, _ in spans_of(driver, 0)} <= {"d8", "tool"}
    assert "0 everywhere" in driver.find_element("id", "legend").text
    driver.execute_script("setColour('advantage')")
    for (_, kinds, _), a, own in zip(spans_of(driver, 0), row["advantage"], row["policy"], strict=True):
        if own and a:
            assert (int(kinds[1:]) > 8) == (a > 0)


@needs_browser
def test_weights_of_0_and_1_alone_are_coloured(opened):
    driver = opened(record_of(3), chain=whatif.chain_of("high_entropy"), seen="high_entropy")
    driver.execute_script("setColour('weight')")
    legend = driver.find_element("id", "legend").text.split()
    assert legend == ["0.5", "2", "(white:", "1;", "underlined:", "below", "0)"]
    assert {kinds for _, kinds, _ in spans_of(driver, 0)} >= {"d0"}


@needs_browser
def test_a_weight_that_turns_the_sign_is_underlined(opened):
    driver = opened(record_of(3), chain=whatif.chain_of("gtpo", {"alpha2": 3.0}), seen="gtpo")
    driver.execute_script("setColour('weight')")
    drawn = [span for column in range(4) for span in spans_of(driver, column)]
    values = driver.execute_script(
        "return columns.slice(0, 4).flatMap(({numbers: n}) => [...n.weight].map((w, i) => n.policy[i] ? w : 1))"
    )
    assert ["turned" in kinds for _, kinds, _ in drawn] == [w is not None and w < 0 for w in values]
    assert any(w is not None and w < 0 for w in values)


@needs_browser
def test_what_is_not_a_number_is_called_so(opened):
    record = record_of(3)
    rows = [{**row, "entropy": [math.nan] * len(row["ids"])} for row in record.rows]
    driver = opened(Record(rows, record.about))
    assert driver.find_element("id", "legend").text == "entropy: no finite number"
    i = groups_of(record)[0][0]["policy"].index(True)
    assert "entropy not a number ·" in hover(driver, 0, i)


@needs_browser
def test_the_mouse_and_the_keyboard(opened):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    first, second = record_of(3, 10), record_of(4, 20)
    driver = opened(first, second)

    def shown():
        chosen = (Select(driver.find_element("id", name)).first_selected_option.text for name in ("step", "group"))
        colour = driver.find_element("css selector", "#colour input:checked").get_attribute("value")
        return (*chosen, colour)

    step, group, colour = shown()
    assert (step, group[:2], colour) == ("10", "1:", "entropy")
    driver.find_element("id", "next").click()
    assert shown()[1].startswith("2:")
    press(driver, "n")
    assert shown()[1].startswith("3:")
    press(driver, "p", "p", "p")
    assert shown()[1].startswith("5:")  # round the end
    driver.find_element("css selector", "#colour input[value=advantage]").click()
    assert shown()[2] == "advantage"
    press(driver, "1")
    assert shown()[2] == "entropy"
    assert not driver.find_element("css selector", "#colour input[value=weight]").is_enabled()
    press(driver, "2")
    assert shown()[2] == "entropy"
    Select(driver.find_element("id", "step")).select_by_visible_text("20")
    assert shown()[0] == "20" and "step 20" in driver.find_element("id", "about").text

    row = groups_of(second)[int(shown()[1][0]) - 1][0]
    driver.execute_script("document.querySelector('.tokens').focus()")
    press(driver, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert driver.find_element("class name", "current").text == row["tokens"][1]
    assert driver.find_element("id", "readout").text.startswith(row["tokens"][1])
    press(driver, Keys.END)
    assert driver.find_element("id", "readout").text.startswith(row["tokens"][-1])
    press(driver, Keys.HOME, Keys.ARROW_LEFT)
    assert "place 1" in driver.find_element("id", "readout").text
    assert len(driver.find_elements("class name", "current")) == 1

    entry = driver.find_element("css selector", "#extremes button")
    wanted = entry.find_element("tag name", "b").text
    driver.execute_script("arguments[0].click()", entry)
    assert driver.find_element("class name", "current").text == wanted


@needs_browser
def test_hostile_text_does_nothing(opened):
    texts = [*HOSTILE, *UNSEEN, *OTHERS, "x" * 1_000_000]
    record = with_tokens(record_of(3), texts)
    record = Record([{**row, "uid": f"{HOSTILE[1]}{row['uid']}"} for row in record.rows], {"algorithm": {}})
    driver = opened(record)
    seen = set()
    for group, responses in enumerate(groups_of(record)):
        driver.execute_script("state.group = arguments[0]; showGroup()", group)
        for column in range(len(responses)):
            for text, _, children in spans_of(driver, column):
                assert children == 0
                seen.add(text)
    expected = {*HOSTILE, *UNSEEN.values(), *OTHERS, "x" * 200 + "… (1000000 characters)"}
    assert seen == expected
    driver.execute_script("document.querySelector('#prompt').open = true")
    assert HOSTILE[0] in driver.find_element("id", "prompt").text
    assert driver.execute_script("return document.querySelectorAll('script').length") == 2
    assert not driver.find_elements("css selector", "iframe, img, link, svg svg")
    width = driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0  # nothing pushes the page out of the window


@needs_browser
def test_a_prompt_of_its_own_stands_over_a_response(opened):
    record = record_of(3)
    rows = [{**row, "prompt": f"{HOSTILE[0]} {n}"} for n, row in enumerate(record.rows)]
    driver = opened(Record(rows, record.about))
    shown = [details.text for details in driver.find_elements("css selector", "article > details > div")]
    prompts = driver.execute_script(
        "return [...document.querySelectorAll('article > details > div')].map((d) => d.textContent)"
    )
    expected = [row["prompt"] for row in groups_of(Record(rows, {}))[0]]
    assert prompts == expected[1:] and not any(shown)  # closed


@needs_browser
def test_the_page_may_do_nothing_but_show(driver, tmp_path):
    """The policy of the page itself: what a fault of ours would let in does not run, and nothing is fetched."""
    path = tmp_path / "page.html"
    path.write_text(inspect.page([record_of(3)], "a run"), encoding="utf-8")
    driver.get(path.as_uri())
    driver.execute_script("document.body.insertAdjacentHTML('beforeend', `<img src='x.png' onerror='window.hit = 1'>`)")
    assert (
        driver.execute_script("return fetch('https://example.com').then(() => 'fetched', () => 'refused')") == "refused"
    )
    assert driver.execute_script("return window.hit === undefined")
    said = " ".join(entry["message"] for entry in driver.get_log("browser"))
    assert "Content Security Policy" in said
    driver.get_log("performance")


@needs_browser
def test_text_can_be_read_on_every_colour(opened):
    driver = opened(record_of(3))

    def light(colour):
        parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    pairs = driver.execute_script(
        "const to = (letter, number) => [...Array(number).keys()].map((i) => letter + i);"
        "const names = [...to('s', 9), ...to('d', 17), 'tool'];"
        "const chunk = document.querySelector('.chunk');"
        "return names.map((name) => { const s = make('span', {class: name}); chunk.append(s);"
        " const style = getComputedStyle(s); return [name, style.color, style.backgroundColor]; })"
    )
    readout = driver.find_element("id", "readout")
    pairs.append(["readout", *(readout.value_of_css_property(name) for name in ("color", "background-color"))])
    for name, front, back in pairs:
        back = "rgb(255, 255, 255)" if back.replace(" ", "").endswith(",0)") else back
        ends = sorted((light(front), light(back)))
        assert (ends[1] + 0.05) / (ends[0] + 0.05) >= 4.5, (name, front, back)


@needs_browser
def test_only_what_is_near_the_window_is_made(opened):
    base = record_of(3)
    rows = []
    for row in base.rows:
        times = -(-16_000 // max(1, len(row["ids"])))
        rows.append({name: value * times if isinstance(value, list) else value for name, value in row.items()})
    driver = opened(Record(rows, base.about))
    total = sum(len(row["ids"]) for row in groups_of(Record(rows, {}))[0])
    made = driver.execute_script("return document.querySelectorAll('.chunk span').length")
    assert total >= 48_000 and 0 < made < total / 4
    driver.execute_script("document.querySelector('.tokens').scrollTop = 1e9")
    end = driver.execute_async_script(
        "const done = arguments[0], last = document.querySelector('.tokens').lastElementChild;"
        "setTimeout(() => done(last.childElementCount), 500)"
    )
    assert end > 0


@needs_browser
@pytest.mark.parametrize("width", [360, 1400])
def test_the_report_fits_the_window(driver, tmp_path, width):
    run = tmp_path / "run"
    run.mkdir()
    rows = [{"step": s, "data": {"critic/score/mean": s / 10, "egsw/effective_share/mean": 0.9}} for s in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", str(run), "--html"]) == 0
    driver.get_log("browser")
    driver.set_window_size(width, 900)
    driver.get((run / "report.html").as_uri())
    pictures = driver.execute_script("return [...document.images].map((i) => [i.complete, i.naturalWidth, i.width])")
    assert len(pictures) == 2 and all(complete and natural for complete, natural, _ in pictures)
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert driver.find_elements("css selector", "td.right")
    assert driver.get_log("browser") == []
    driver.set_window_size(1400, 1000)


# ------------------------------------------------------------------------------------------------- without a browser


def test_charts_hold_the_records_numbers():
    record = record_of(5)
    step = first_step([record], "x")
    histogram = step["histograms"][0]
    for outcome, right in (("success", True), ("failure", False)):
        values = [
            h
            for row in record.rows
            if row["success"] is right
            for h, own in zip(row["entropy"], row["policy"], strict=True)
            if own
        ]
        edges = histogram["edges"]
        for low, high, part in zip(edges, edges[1:-1], histogram[outcome], strict=False):
            assert part == pytest.approx(sum(low <= h < high for h in values) / len(values))
        assert sum(histogram[outcome]) == pytest.approx(1)
    largest = max(h for row in record.rows for h, own in zip(row["entropy"], row["policy"], strict=True) if own)
    assert step["extremes"][0]["tokens"][0]["value"] == pytest.approx(largest)
    course = next(c for c in step["courses"] if c["title"] == "entropy")
    for outcome, right in (("success", True), ("failure", False)):
        lengths = [sum(row["policy"]) for row in record.rows if row["success"] is right]
        for low, high, few in zip(course["edges"], course["edges"][1:], course["few"][outcome], strict=False):
            reach = sum(any(low <= place < high for place in range(length)) for length in lengths)
            assert few == (reach < 3)
    assert len(course["edges"]) == max(sum(row["policy"]) for row in record.rows) + 1  # a bin for each place of a few
    first = [
        next(h for h, own in zip(row["entropy"], row["policy"], strict=True) if own)
        for row in record.rows
        if row["success"] and any(row["policy"])
    ]
    assert course["success"][0] == pytest.approx(sum(first) / len(first))


def test_the_entropys_part_is_shown_where_the_run_can_be_made_again(tmp_path):
    """The advantage less that with alpha2 = 0, of which nothing is left where entropies are all the same."""
    record = gtpo_run(tmp_path, alpha2=0.3)
    step = first_step([record], "x")
    assert "part" in step["colours"] and "alpha2=0.3" in step["method"]
    without = whatif.seen_as(record, whatif.chain_of("gtpo", {"alpha2": 0}))
    parts = {
        (row["session"], t): a - b
        for row, other in zip(record.rows, without, strict=True)
        for t, (a, b, own) in enumerate(zip(row["advantage"], other["advantage"], row["policy"], strict=True))
        if own
    }
    raised, lowered = step["extremes"]
    assert raised["title"] == "Raised most by the entropy" and lowered["title"] == "Lowered most by the entropy"
    assert raised["tokens"][0]["value"] == pytest.approx(max(parts.values()), rel=1e-3)
    assert lowered["tokens"][0]["value"] == pytest.approx(min(parts.values()), rel=1e-3)
    # Of a batch that is normalised as one, half cannot give the same advantages.
    some = list(dict.fromkeys(row["uid"] for row in record.rows))[:2]
    half = Record([row for row in record.rows if row["uid"] in some], record.about)
    assert "part" not in first_step([half], "x")["colours"]
    # Nor can weights that another chain has published.
    other = Record([{**row, "weight": [2.0] * len(row["ids"])} for row in record.rows], record.about)
    assert "part" not in first_step([other], "x")["colours"]


def first_step(*arguments):
    """The numbers of a page's first step."""
    return json.loads(re.search(r'id="data">(.*?)</script>', inspect.page(*arguments), re.DOTALL)[1])["steps"][0]


def test_weights_of_0_and_1_alone_have_ends_and_extremes():
    for method, options in (("high_entropy", {}), ("sign_weight", {"positive": 0.0, "negative": 1.0})):
        step = first_step([record_of(3)], "x", whatif.chain_of(method, options), method)
        assert step["limits"]["weight"] == pytest.approx(math.log(2))
    values = {end["title"]: end["tokens"][0]["value"] for end in step["extremes"]}
    assert values == {"Largest weight": 1, "Smallest weight": 0}  # of one that no entropy moves


def test_a_step_of_one_weight_and_one_without_a_number():
    record = record_of(3)
    assert first_step([record], "x", whatif.chain_of("grpo"), "grpo")["limits"]["weight"] == 0
    rows = [{**row, "entropy": [math.nan] * len(row["ids"])} for row in record.rows]
    assert first_step([Record(rows, record.about)], "x")["limits"]["entropy"] is None


def test_outputs_of_a_session_have_prompts_of_their_own():
    record = record_of(3)
    rows = [{**row, "session": "0", "prompt": f"{row['prompt']} {n}"} for n, row in enumerate(record.rows)]
    for page, own in (([record], False), ([Record(rows, record.about)], True)):
        for group in first_step(page, "x")["groups"]:
            first, *others = (response["prompt"] for response in group["responses"])
            assert first is None and all((prompt is not None) == own for prompt in others)


def test_weights_of_another_method_follow_its_advantages():
    record = record_of(6)
    ids = dense_group_ids([row["uid"] for row in record.rows])
    seen = whatif.seen_as(record, whatif.chain_of("egsw", {"alpha": 0.0, "temperature": 1e30}))
    assert len(ids) == len(seen)
    for row, original in zip(seen, record.rows, strict=True):
        assert row["weight"] == pytest.approx([1.0] * len(row["weight"]))
        assert row["advantage"] == pytest.approx(original["base"], abs=1e-6)
    moved = 0
    for row, original in zip(whatif.seen_as(record, whatif.chain_of("gtpo")), record.rows, strict=True):
        assert row["base"] == original["base"]  # GRPO's, not GTPO's own
        for a, b, w in zip(row["advantage"], row["base"], row["weight"], strict=True):
            assert b == 0 or w == pytest.approx(a / b)
            moved += abs(a - b) > 1e-3
    assert moved > 10


def test_the_command(tmp_path, capsys):
    for step in (10, 20):
        store.write_record(record_of(step, step), tmp_path / "records")
    assert main(["inspect", str(tmp_path), "--step", "20", "--method", "gtpo", "--set", "alpha2=0.2"]) == 0
    assert "inspect-gtpo.html: 1 steps" in capsys.readouterr().out
    assert "as gtpo alpha2=0.2 would have it" in (tmp_path / "inspect-gtpo.html").read_text()
    assert main(["inspect", str(tmp_path), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert "adv_estimator=grpo" in (tmp_path / "new" / "page.html").read_text()


@pytest.mark.parametrize(
    "arguments,fix",
    [
        (["--set", "alpha=1"], "with --method"),
        (["--method", "egsw", "--set", "alpha=1,2"], "egsw-plugin whatif"),
        (["--method", "egsw", "--set", "alhpa=1"], "did you mean 'alpha'"),
        (["--step", "3"], "it has 10"),
        (["--out", "."], "name a file"),
    ],
)
def test_the_command_refuses(tmp_path, capsys, arguments, fix):
    store.write_record(record_of(9, 10), tmp_path / "records")
    assert main(["inspect", str(tmp_path), *arguments]) == 2
    assert fix in capsys.readouterr().err


@pytest.mark.parametrize("columns", [{}, {"entropy": None}, {"old_log_prob": None}, {"weight": "ones"}])
def test_records_with_little_in_them(columns):
    record = record_of(8)
    rows = []
    for number, row in enumerate(record.rows):
        weight = [1.0] * len(row["ids"]) if columns.get("weight") else None
        row = {**row, **columns, "weight": weight}
        if number % 2:  # a response without tokens, and one that the policy did not write
            row |= {name: [] for name, value in row.items() if isinstance(value, list)}
        elif number % 4:
            row["policy"] = [False] * len(row["policy"])
        rows.append(row)
    assert "response" in inspect.page([Record(rows, {"algorithm": {}})], "x")
    empty = [{**row, **{name: [] for name, value in row.items() if isinstance(value, list)}} for row in rows]
    assert "response" in inspect.page([Record(empty, {})], "x")


@needs_browser
def test_a_step_without_a_token_opens(opened):
    rows = [
        {**row, **{name: [] for name, value in row.items() if isinstance(value, list)}} for row in record_of(8).rows
    ]
    driver = opened(Record(rows, {}))
    press(driver, "n", "3")
    assert len(driver.find_elements("tag name", "article")) > 0
