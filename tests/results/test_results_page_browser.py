"""The page in a browser."""

import pytest
from browser import PROGRAM, Browser
from page_parts import HOSTILE, of_three_methods, png, shown, whole

from results import comparison_table, published
from results.figures import figures
from results.formats.html import to_html
from results.logs import Log


@pytest.fixture
def records(make_record):
    return of_three_methods(make_record)


COLUMN = """(n => [...document.querySelectorAll(`#t-0 tbody tr:not([hidden]) > :nth-child(${n})`)]
    .map(cell => cell.textContent.trim()))"""


@pytest.fixture(scope="module")
def browser():
    if PROGRAM is None:
        pytest.skip("no Chromium here")
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def opened(browser, records, tmp_path):
    """A whole page with a picture, in a browser; there must be no complaint by the end."""
    file = tmp_path / "report.html"
    tables = comparison_table(records, published())
    runs = shown(records, pictures=(("ground truth", png(tmp_path / "a.png", (900, 700))),))
    logs = [Log("run", records[0].protocol, False, (1.0, 2.0, 3.0), (3.0, 2.0, 1.0))]
    file.write_text(to_html(tables, figures(records, published(), logs), runs))
    browser.open(file)
    yield browser
    assert browser.problems == []
    outside = [url for url in browser.requests if not url.startswith(("file:", "data:"))]
    assert outside == []


def test_sorting(opened):
    before = opened.run(f"{COLUMN}(3)")
    header = "document.querySelector('#t-0 thead th:nth-child(3)')"
    arrow = f"getComputedStyle({header}.querySelector('.what'), '::after').content"
    assert "↕" in opened.run(arrow)
    opened.run(f"{header}.querySelector('button').click()")
    assert "↑" in opened.run(arrow)
    values = [float(text.split()[0]) for text in opened.run(f"{COLUMN}(3)") if text != "–"]
    assert values == sorted(values)
    assert len(values) == 4
    assert opened.run(f"{COLUMN}(3)")[-1] == "–"  # empty ones are last either way
    assert opened.run(f"{header}.getAttribute('aria-sort')") == "ascending"
    opened.run(f"{header}.querySelector('button').click()")
    assert "↓" in opened.run(arrow)
    texts = opened.run(f"{COLUMN}(3)")
    values = [float(text.split()[0]) for text in texts if text != "–"]
    assert values == sorted(values, reverse=True)
    assert texts[-1] == "–"
    assert sorted(texts) == sorted(before)
    assert opened.run(f"{header}.getAttribute('aria-sort')") == "descending"


def test_sorting_with_the_keyboard(opened):
    header = "document.querySelector('#t-0 thead th:nth-child(2)')"
    opened.run(f"{header}.querySelector('button').focus()")
    opened.press("Enter")
    labels = opened.run(f"{COLUMN}(2)")
    assert labels == sorted(labels, key=str.lower)
    assert opened.run("document.querySelectorAll('#t-0 [aria-sort]').length") == 1


def test_filtering(opened):
    kinds = "document.querySelectorAll('.tools [type=checkbox]')"
    assert not opened.run("document.querySelector('.tools').hidden")
    opened.run("document.querySelector('[type=search]').focus()")
    for letter in "beit":
        opened.press(letter)
    assert {text.rstrip("abc").lower() for text in opened.run(f"{COLUMN}(2)")} == {"beit"}
    assert opened.run("document.querySelector('.tools output').textContent").startswith("2 of ")
    runs = "[...document.querySelectorAll('details.run:not([hidden])')].length"
    assert opened.run(runs) == 1
    opened.run("document.querySelector('.tools').reset()")
    opened.run(f"{kinds}[1].click()")
    visible = """[...document.querySelectorAll('#t-0 thead th')]
        .filter(th => getComputedStyle(th).display !== 'none').map(th => th.className)"""
    assert opened.run(visible) == ["label", "label", "measured", "difference"]
    assert "–" not in opened.run(f"{COLUMN}(3)")  # rows that only others published are gone
    opened.run(f"{kinds}[0].click(); {kinds}[2].click()")
    assert opened.run(f"{COLUMN}(1)") == []


def test_a_filter_that_matches_nothing(opened):
    opened.run("document.querySelector('[type=search]').focus()")
    for letter in "xyz":
        opened.press(letter)
    assert opened.run("document.querySelectorAll('article:not([hidden])').length") == 0
    assert opened.run("document.querySelector('.tools output').textContent").startswith("0 of ")


def test_a_click_on_a_score_opens_what_is_behind_it(opened):
    assert opened.run("document.querySelectorAll('details[open]').length") == 0
    opened.run("document.querySelector('#t-0 td.measured a').click()")
    opened.run("new Promise(done => setTimeout(done, 50))")
    target = opened.run("location.hash")
    assert opened.run(f"document.querySelector('{target}').open") is True
    top = opened.run(f"document.querySelector('{target}').getBoundingClientRect().top")
    assert -1 <= top < 900


def test_pictures_grow_and_shrink(opened):
    height = "document.querySelector('.zoom img').getBoundingClientRect().height"
    small = opened.run(height)
    opened.run("document.querySelector('.zoom').click()")
    assert opened.run(height) > 1.5 * small
    opened.run("document.querySelector('.zoom').click()")
    assert opened.run(height) == small


def test_on_a_phone_every_number_is_seen_with_its_name(opened, tmp_path):
    """A row is a card: nothing is cut off at the right, and no empty cell takes a line."""
    opened.open(tmp_path / "report.html", width=360, height=740)
    opened.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert opened.run("document.documentElement.scrollWidth") <= 360
    box = "document.querySelector('#t-0 .scroll')"
    assert opened.run(f"{box}.scrollWidth <= {box}.clientWidth")
    cells = "[...document.querySelectorAll('#t-0 td.measured:not(.empty), #t-0 td.published')]"
    inside = "cell => cell.getBoundingClientRect().right <= 360"
    assert opened.run(f"{cells}.every({inside})")
    assert opened.run(f"{cells}.length") > 0
    named = "getComputedStyle(document.querySelector('#t-0 td.measured'), '::before').content"
    assert "top-1" in opened.run(named)
    empty = "document.querySelector('#t-0 td.empty')"
    assert opened.run(f"getComputedStyle({empty}).display") == "none"


def test_it_prints(opened, tmp_path):
    """No controls on paper, and nothing wider than the page."""
    opened.open(tmp_path / "report.html", width=700)
    opened.send("Emulation.setEmulatedMedia", media="print")
    hidden = "getComputedStyle(document.querySelector('{}')).display"
    assert opened.run(hidden.format(".tools")) == "none"
    assert opened.run(hidden.format("nav")) == "none"
    assert opened.run("document.documentElement.scrollWidth") <= 700
    opened.send("Emulation.setEmulatedMedia", media="")
    recipe = "document.querySelector('details .facts').getBoundingClientRect().height"
    opened.send("Emulation.setEmulatedMedia", media="print")
    assert opened.run(recipe) > 10  # of a run that nobody opened
    opened.send("Emulation.setEmulatedMedia", media="")
    document = opened.pdf()
    assert document.startswith(b"%PDF")
    assert document.count(b"/Type /Page\n") >= 2


def test_dark_and_light(opened):
    ink = "getComputedStyle(document.body).color"
    plot = "getComputedStyle(document.querySelector('svg text')).fill"
    seen = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.send("Emulation.setEmulatedMedia", features=features)
        seen.append((opened.run(ink), opened.run(plot)))
    opened.send("Emulation.setEmulatedMedia", features=[])
    (light_ink, light_plot), (dark_ink, dark_plot) = seen
    assert light_ink != dark_ink
    assert light_plot != dark_plot


def test_hostile_text_runs_nothing(browser, make_record, tmp_path):
    records = [
        make_record(init=text, name=text, backbone=text, metrics={"top1": float(i), text: 1.0})
        for i, text in enumerate(HOSTILE)
    ]
    file = tmp_path / "report.html"
    file.write_text(whole(records))
    browser.open(file)
    assert browser.problems == []
    assert browser.run("window.stolen") is None
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('details').length") == len(HOSTILE)
    assert [url for url in browser.requests if not url.startswith("data:")] == [file.as_uri()]


def test_the_policy_stops_a_script_that_got_in(browser, tmp_path):
    """Even if escaping failed somewhere, the page would run no script but its own."""
    file = tmp_path / "report.html"
    html = to_html([]).replace("</main>", "<script>window.stolen = 1</script></main>")
    file.write_text(html.replace("<h1>", "<img src=x onerror='window.stolen = 1'><h1>"))
    browser.open(file)
    assert browser.run("window.stolen") is None
    assert browser.problems  # the browser says what it stopped


def test_the_page_loads_itself_again(browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(to_html([], refresh=1))
    browser.open(file)
    assert "refreshes every 1 s" in browser.run("document.querySelector('.lead').textContent")
    file.write_text(to_html([], title="the second"))
    while not any(
        event.get("method") == "Page.loadEventFired" for event in browser.events[-1:]
    ) or "second" not in browser.run("document.title"):
        browser.events.append(browser.receive())
    assert browser.problems == []
