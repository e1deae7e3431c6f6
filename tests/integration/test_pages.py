"""Pages in a real browser: they load nothing, fail nowhere, and do what they say."""

import shutil

import pytest

from lca_keras.drawing import pages
from lca_keras.studies import results
from tests.studies.test_tables import result

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tools:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens a page and fails on any error or request of it."""
    problems, contexts = [], []

    def open_page(path, scheme="light"):
        context = browser.new_context(color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: m.type == "error" and problems.append(m.text))

        def requested(request):
            if not request.url.startswith(("file:", "data:", "blob:")):
                problems.append(f"asks for {request.url}")

        page.on("request", requested)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def column(page, number):
    return page.locator(f"tbody td:nth-child({number})").all_inner_texts()


def test_a_table_sorts_by_numbers_names_and_back(opened, tmp_path):
    rows = [["b", "0.91 / 0.95"], ["a", "10,000"], ["ä<i>", "−2 %"], ["c", ""]]
    path = pages.write(tmp_path / "a.html", "A & B", pages.table(["name", "n"], rows))
    page = opened(path)
    assert page.title() == "A & B"
    page.locator("th button").nth(1).click()
    assert column(page, 2) == ["−2 %", "0.91 / 0.95", "10,000", ""]
    page.locator("th button").nth(1).click()
    assert column(page, 2) == ["10,000", "0.91 / 0.95", "−2 %", ""]
    page.locator("th button").first.click()
    assert column(page, 1) == ["a", "ä<i>", "b", "c"]
    heading = page.locator("th").first
    assert heading.get_attribute("aria-sort") == "ascending"


def test_the_theme_is_the_systems_until_one_is_chosen(opened, tmp_path):
    path = pages.write(tmp_path / "a.html", "A", "<p>text</p>")

    def background(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = opened(path), opened(path, "dark")
    assert background(light) == "rgb(255, 255, 255)"
    assert background(dark) != background(light)
    light.click("#theme")
    assert background(light) == background(dark)
    assert light.inner_text("#theme") == "Light"


def test_a_report_holds_all_tables_and_pictures(opened, tmp_path):
    folder = tmp_path / "my experiments & more"
    folder.mkdir()
    result().write(folder)
    from lca_keras.drawing import plots

    plots.save_figure(plots.new_figure(2, 1), folder / "a.png")
    (folder / "a.csv").write_text("x,y\n1,2\n")
    page = opened(results.write_page(folder))
    assert page.locator("figure img").evaluate("image => image.naturalWidth") > 0
    assert column(page, 1) == ["Björn & Co", "x_y"]
    with page.expect_download() as download:
        page.get_by_role("link", name="data (CSV)").click()
    assert download.value.suggested_filename == "a.csv"
    with open(download.value.path()) as file:
        assert file.read() == "x,y\n1,2\n"


def test_a_song_plays_along_with_its_map(opened, tmp_path):
    import numpy as np
    import soundfile

    from lca_keras.explanation import song_page
    from lca_keras.explanation.explainer import Explanation

    rng = np.random.default_rng(0)
    name = "\"ö'</script> 歌.wav"
    path = tmp_path / name.replace("/", "")
    soundfile.write(path, 0.1 * rng.normal(size=16000 * 9), 16000)
    mel = rng.normal(-40, 10, (128, 282)).astype("float32")
    mel[:, 100:110] = np.nan  # Silence.
    cam = np.abs(mel) * (np.arange(282) < 188)
    found = Explanation(
        song=str(path),
        artists=["Ann </script>", "Bo"],
        singer="Bo",
        probabilities=np.array([[0.2, 0.8], [0.7, 0.3], [0.1, 0.9]]),
        starts=np.array([0.0, 3.0, 6.0]),
        clip_seconds=3.0,
        frame_rate=31.25,
        mel=mel,
        maps={"Bo": cam, "Ann </script>": cam[::-1]},
        counterfactual=None,
        attention=None,
        cf_attention=None,
        voice_shares={},
        voice_cells=None,
        centres=np.geomspace(50, 7900, 128),
        layer="fgnl",
        notes=["a & b"],
    )
    page = opened(song_page.write(found, tmp_path / "song.html"))
    page.wait_for_function("document.querySelector('audio').readyState >= 2")
    assert page.inner_text("#now").startswith("0.0 to 3.0 s: Bo, 80 %")
    film = "document.querySelector('#close .film').getBoundingClientRect().left"
    before = page.evaluate(film)
    page.evaluate("document.querySelector('audio').muted = true")
    page.evaluate("document.querySelector('audio').play()")
    page.wait_for_function("document.querySelector('audio').currentTime > 0.4")
    page.evaluate("document.querySelector('audio').pause()")
    played = page.evaluate("document.querySelector('audio').currentTime")
    page.wait_for_timeout(300)
    assert before - page.evaluate(film) == pytest.approx(132 * played, abs=15)
    box = page.locator("#whole").bounding_box()
    page.locator("#whole").click(position={"x": box["width"] * 0.5, "y": 20})
    page.wait_for_function("document.querySelector('audio').currentTime > 4")
    page.wait_for_function("document.querySelector('#now').textContent.includes('Ann')")
    shown = "[...document.querySelectorAll('#close [data-map]')].map(x => !x.hidden)"
    assert page.evaluate(shown) == [True, False]
    page.locator("input[name=map]").nth(1).check()
    assert page.evaluate(shown) == [False, True]
