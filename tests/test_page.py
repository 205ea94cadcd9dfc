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
    methods = {method: whatif.chain_of(method, options)} if method else {}
    driver = opened(record, methods=methods)
    rows = record.rows
    if method:  # afresh, through the kernels
        batch = whatif.batch_of(record)
        advantages = apply(methods[method], batch).advantages
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
    driver = opened(record_of(3), methods={"high_entropy": whatif.chain_of("high_entropy")})
    driver.execute_script("setColour('weight')")
    legend = driver.find_element("id", "legend").text.split()
    assert legend == ["0.5", "2", "(white:", "1;", "underlined:", "below", "0)"]
    assert {kinds for _, kinds, _ in spans_of(driver, 0)} >= {"d0"}


@needs_browser
def test_a_weight_that_turns_the_sign_is_underlined(opened):
    driver = opened(record_of(3), methods={"gtpo": whatif.chain_of("gtpo", {"alpha2": 3.0})})
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


METHODS = {"gtpo alpha2=0.3": ("gtpo", {"alpha2": 0.3}), "egsw": ("egsw", {"temperature": 1.0}), "grpo_s": ("grpo_s",)}


def chains():
    return {name: whatif.chain_of(*of) for name, of in METHODS.items()}


def sorted_as_shown(record, tensor):
    """Rows of a tensor, [R, T], by group and response of the page."""
    rows = [{**row, "of": values} for row, values in zip(record.rows, tensor, strict=True)]
    return [[row["of"] for row in group] for group in groups_of(Record(rows, {}))]


@needs_browser
def test_each_method_has_its_own_numbers_on_one_scale(opened):
    """Against the chain itself: what is read out, of one method and of all, and each token's colour."""
    record = record_of(3)
    driver = opened(record, methods=chains())
    places = [(g, c, row) for g, rows in enumerate(groups_of(record)) for c, row in enumerate(rows) if any(row["base"])]
    group, column, row = max(places, key=lambda place: len(place[2]["ids"]))
    batch = whatif.batch_of(record)
    there = batch.rows.mask.bool()
    made = {"as it ran": batch.base.expand(there.shape)}
    made |= {name: apply(chain, batch).advantages for name, chain in chains().items()}
    ends = [torch.quantile(a[there].abs()[a[there].abs() > 1e-9].double(), 0.99) for a in made.values()]
    limit = float(max(ends))
    assert min(ends) < limit / 1.1  # or one scale could not be told from four
    own = {name: sorted_as_shown(record, a)[group][column].tolist() for name, a in made.items()}
    driver.execute_script("state.group = arguments[0]; showGroup(); setColour('advantage')", group)
    names = [label.text for label in driver.find_elements("css selector", "#method label")]
    assert names == ["as it ran", *METHODS]
    legends = set()
    for name in [*names[1:], names[0]]:
        chosen = driver.find_element("css selector", "#method input:checked").get_attribute("value")
        assert int(chosen) == names.index(name)
        legends.add(driver.find_element("id", "legend").get_attribute("aria-label"))
        for i, (_, kinds, _) in enumerate(spans_of(driver, column)):
            if row["policy"][i]:
                part = max(-8, min(8, own[name][i] / limit * 8))
                assert abs(int(kinds[1:]) - (8 + part)) <= 0.501, (name, i)
        i = row["policy"].index(True)
        said = hover(driver, column, i)
        assert number("advantage", said) == pytest.approx(own[name][i], rel=1e-3)
        assert number("change", said) == pytest.approx(own[name][i] - row["base"][i], rel=1e-3, abs=1e-3)
        for other in names:
            assert number(f"{re.escape(other)}:", said) == pytest.approx(own[other][i], rel=1e-3), (name, other)
        press(driver, "m")
    assert len(legends) == 1
    driver.execute_script("setColour('entropy')")
    assert "as it ran" not in hover(driver, column, i)  # it is the same for all
    driver.execute_script("setColour('part')")
    assert "[as it ran: 0, gtpo alpha2=0.3: " in hover(driver, column, i)
    driver.execute_script("setColour('weight')")
    assert "[as it ran: 1, gtpo alpha2=0.3: " in hover(driver, column, i)


@needs_browser
def test_another_method_keeps_the_place_and_the_token(opened):
    base = record_of(3)
    rows = [
        {name: value * 60 if isinstance(value, list) else value for name, value in row.items()} for row in base.rows
    ]
    driver = opened(Record(rows, base.about), methods=chains())
    group = 2
    column, row = max(enumerate(groups_of(Record(rows, {}))[group]), key=lambda place: len(place[1]["ids"]))
    i = next(i for i in range(300, 400) if row["policy"][i])
    driver.execute_script("state.group = arguments[0]; showGroup(); setColour('advantage')", group)
    driver.execute_script("choose(...arguments)", column, i)
    driver.execute_script(
        "window.scrollTo(0, 60); document.querySelectorAll('.tokens')[arguments[0]].scrollTop += 37;"
        "at('responses').scrollLeft = 90; window.kept = document.querySelector('.current')",
        column,
    )
    place = (
        "return [window.scrollY, ...[...document.querySelectorAll('.tokens')].map((t) => t.scrollTop),"
        " at('responses').scrollLeft, at('group').value, ...Object.values(kept.getBoundingClientRect().toJSON())]"
    )
    before = driver.execute_script(place)
    assert before[0] == 60 and before[1 + column] >= 37
    charts = []
    for _ in METHODS:
        said = driver.find_element("id", "readout").text
        parts = [driver.find_element("id", name).get_attribute("innerHTML") for name in ("charts", "extremes")]
        charts.append((number("advantage", said), *parts))
        press(driver, "m")
        assert driver.execute_script(place) == before
        assert driver.execute_script("return kept === document.querySelector('.current') && kept.isConnected")
        assert driver.find_element("id", "readout").text.startswith(f"{row['tokens'][i]} id")
    for follows in zip(*charts, strict=True):
        assert len(set(follows)) == len(METHODS)
    driver.find_element("css selector", "#method input").click()  # none but the one that was there
    assert driver.execute_script("return kept === document.querySelector('.current')")


@needs_browser
def test_outcomes_are_the_methods(opened):
    """A threshold of one's own judges the score anew."""
    record = record_of(3)
    driver = opened(record, methods={"gtpo threshold=9": whatif.chain_of("gtpo", {"threshold": 9.0})})
    right = sum(row["success"] for row in groups_of(record)[0])
    assert right
    for number_of in (0, right, 0):
        assert len(driver.find_elements("css selector", "article.success")) == number_of
        titles = [h.text for h in driver.find_elements("css selector", "article h3")]
        assert sum(title.startswith("success") for title in titles) == number_of
        option = driver.find_element("css selector", "#group option:checked").text
        assert option.startswith(f"1: {number_of} of 4 right")
        press(driver, "m")


@needs_browser
def test_a_colour_that_one_method_lacks_comes_back_with_another(opened, tmp_path):
    record = gtpo_run(tmp_path)
    some = list(dict.fromkeys(row["uid"] for row in record.rows))[:2]
    half = Record([row for row in record.rows if row["uid"] in some], record.about)
    driver = opened(half, methods={"gtpo": whatif.chain_of("gtpo"), "egsw": whatif.chain_of("egsw")})
    assert driver.find_element("css selector", "#method label").text == "as gtpo"
    driver.execute_script("setColour('part')")
    shown = []
    for _ in range(3):
        shown.append(driver.find_element("css selector", "#colour input:checked").get_attribute("value"))
        enabled = driver.find_element("css selector", "#colour input[value=part]").is_enabled()
        assert enabled == (shown[-1] == "part")
        press(driver, "m")
    assert shown == ["part", "part", "entropy"]
    column = next(c for c, row in enumerate(groups_of(half)[0]) if any(row["policy"]))
    said = hover(driver, column, groups_of(half)[0][column]["policy"].index(True))
    assert "[as gtpo: not known, gtpo: " in said


@needs_browser
def test_without_a_method_there_is_no_control(opened):
    driver = opened(record_of(3))
    driver.execute_script("document.querySelector('#help').open = true; setColour('advantage')")
    assert not driver.find_element("id", "method").is_displayed()
    assert "ethod" not in driver.find_element("tag name", "nav").text
    assert "m the next method" not in driver.find_element("id", "help").text
    before = driver.find_element("tag name", "body").get_attribute("innerHTML")
    press(driver, "m")
    assert driver.find_element("tag name", "body").get_attribute("innerHTML") == before
    row = groups_of(record_of(3))[0][0]
    assert "as it ran" not in hover(driver, 0, row["policy"].index(True))


@needs_browser
def test_methods_fit_a_narrow_window(opened, driver):
    names = {f"{'sub/' * 12}late_tokens.py:LateTokens decay=0.5": whatif.chain_of("egsw")}
    opened(record_of(3), methods=chains() | names)
    driver.set_window_size(400, 900)
    try:
        driver.execute_script("setColour('advantage'); choose(0, 0)")
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        wide = driver.execute_script(
            "return [...document.querySelectorAll('nav label')].filter((l) => l.getBoundingClientRect().right >"
            " window.innerWidth).length"
        )
        assert wide == 0
        driver.execute_script("at('help').open = true; window.scrollTo(0, 1e6)")
        last, line = driver.execute_script(
            "return [document.querySelector('#help p:last-child').getBoundingClientRect().bottom,"
            " at('readout').getBoundingClientRect().top]"
        )
        assert last <= line
    finally:
        driver.set_window_size(1400, 1000)


# ------------------------------------------------------------------------------------------------- without a browser


def test_charts_hold_the_records_numbers():
    record = record_of(5)
    step = first_step([record], "x")
    (view,) = step["views"]
    histogram = view["histograms"][0]
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
    assert view["extremes"][0]["tokens"][0]["value"] == pytest.approx(largest)
    course = next(c for c in view["courses"] if c["title"] == "entropy")
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
    (view,) = step["views"]
    assert "part" in view["colours"] and view["name"] == "as it ran" and "alpha2=0.3" in step["method"]
    without = whatif.seen_as(record, whatif.chain_of("gtpo", {"alpha2": 0}))
    parts = {
        (row["session"], t): a - b
        for row, other in zip(record.rows, without, strict=True)
        for t, (a, b, own) in enumerate(zip(row["advantage"], other["advantage"], row["policy"], strict=True))
        if own
    }
    raised, lowered = view["extremes"]
    assert raised["title"] == "Raised most by the entropy" and lowered["title"] == "Lowered most by the entropy"
    assert raised["tokens"][0]["value"] == pytest.approx(max(parts.values()), rel=1e-3)
    assert lowered["tokens"][0]["value"] == pytest.approx(min(parts.values()), rel=1e-3)
    # Of a batch that is normalised as one, half cannot give the same advantages.
    some = list(dict.fromkeys(row["uid"] for row in record.rows))[:2]
    half = Record([row for row in record.rows if row["uid"] in some], record.about)
    assert only_view([half])["name"] == "as gtpo" and "part" not in only_view([half])["colours"]
    # Nor can weights that another chain has published.
    other = Record([{**row, "weight": [2.0] * len(row["ids"])} for row in record.rows], record.about)
    assert only_view([other])["name"] == "as gtpo" and "part" not in only_view([other])["colours"]


def data_of(text):
    """The data of a page."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def first_step(*arguments):
    """The numbers of a page's first step."""
    return data_of(inspect.page(*arguments))["steps"][0]


def only_view(records):
    """What a page without methods has of its first step."""
    (view,) = first_step(records, "x")["views"]
    return view


def test_weights_of_0_and_1_alone_have_ends_and_extremes():
    for method, options in (("high_entropy", {}), ("sign_weight", {"positive": 0.0, "negative": 1.0})):
        step = first_step([record_of(3)], "x", {method: whatif.chain_of(method, options)})
        assert step["limits"]["weight"] == pytest.approx(math.log(2))
    values = {end["title"]: end["tokens"][0]["value"] for end in step["views"][1]["extremes"]}
    assert values == {"Largest weight": 1, "Smallest weight": 0}  # of one that no entropy moves


def test_a_colour_ends_where_it_ends_for_the_method_that_goes_farthest():
    record = record_of(3)
    together = first_step([record], "x", chains())["limits"]
    alone = [first_step([record], "x", {name: chain})["limits"] for name, chain in chains().items()]
    for colour, limit in together.items():
        assert limit == max(one[colour] for one in alone), colour
    assert len({one["advantage"] for one in alone}) == len({one["part"] for one in alone}) == len(alone)


def test_what_methods_share_is_there_once():
    record = record_of(3)
    rows = [{name: x * 60 if isinstance(x, list) else x for name, x in row.items()} for row in record.rows]
    pages = [inspect.page([Record(rows, record.about)], "x", dict(list(chains().items())[:n])) for n in (1, 2, 3)]
    for views, text in enumerate(pages, 2):
        for group in data_of(text)["steps"][0]["groups"]:
            for response in group["responses"]:
                assert {"tokens", "policy", "entropy", "old_log_prob", "base"} < set(response)
                own = {"success", "weight", "advantage", "part"}
                assert [set(one) for one in response["views"]] == [own] * views
    assert len(pages[2]) < 1.8 * len(pages[0])  # of four views and of two
    # What a response has but one number of is that number.
    alike = {"policy": True, "base": 0.5, "advantage": 0.5}
    level = [{**row, **{name: [value] * len(row["ids"]) for name, value in alike.items()}} for row in rows]
    for group in first_step([Record(level, record.about)], "x", {"grpo": whatif.chain_of("grpo")})["groups"]:
        for response in group["responses"]:
            packed = [response["base"], *(one[name] for one in response["views"] for name in ("weight", "part"))]
            assert all(len(text) == (8 if response["length"] else 0) for text in packed)


def test_a_step_of_one_weight_and_one_without_a_number():
    record = record_of(3)
    assert first_step([record], "x", {"grpo": whatif.chain_of("grpo")})["limits"]["weight"] == 0
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
    (step,) = data_of((tmp_path / "inspect-gtpo.html").read_text())["steps"]
    assert [view["name"] for view in step["views"]] == ["as it ran", "gtpo alpha2=0.2"]
    several = "--method grpo_s --method gtpo --set gtpo.overlong.enable=true --set grpo_s.beta2=1"
    assert main(["inspect", str(tmp_path), *several.split()]) == 0
    for step in data_of((tmp_path / "inspect-grpo_s-gtpo.html").read_text())["steps"]:
        assert [view["name"] for view in step["views"]] == ["as it ran", "grpo_s beta2=1", "gtpo overlong.enable=true"]
    assert main(["inspect", str(tmp_path), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert "adv_estimator=grpo" in (tmp_path / "new" / "page.html").read_text()


TWO = ["--method", "gtpo", "--method", "egsw"]


@pytest.mark.parametrize(
    "arguments,fix",
    [
        (["--set", "alpha=1"], "with --method"),
        (["--method", "egsw", "--set", "alpha=1,2"], "egsw-plugin whatif"),
        (["--method", "egsw", "--set", "alhpa=1"], "did you mean 'alpha'"),
        (["--method", "egsw", "--set", "egsw.alpha=1", "--set", "alpha=2"], "alpha comes twice"),
        ([*TWO, "--set", "alpha=1"], "write METHOD.OPTION=VALUE, with one of gtpo, egsw"),
        ([*TWO, "--set", "grpo_s.beta2=1"], "write METHOD.OPTION=VALUE, with one of gtpo, egsw"),
        ([*TWO, "--set", "gtpo.alpha=1"], "algorithm.gtpo.alpha=1: gtpo has no such option"),
        ([*TWO, "--set", "egsw.alpha=1,2"], "egsw-plugin whatif"),
        ([*TWO, "--method", "grpo", "--set", "grpo.alpha=1"], "grpo has no options"),
        ([*TWO, "--method", "gtpo"], "it comes twice; leave one out"),
        ([*TWO, "--method", "egws"], "did you mean 'egsw'"),
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
