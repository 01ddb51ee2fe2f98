"""The documentation site, as `make check` has built it, in a real browser."""

import functools
import http.server
import threading

import pytest
from browser import open_browser
from environments import ROOT

pytestmark = pytest.mark.check

PAGES = [
    "index",
    "tutorials/from-lightning",
    "how-to/resume",
    "reference/callback-points",
    "reference/api",
    "components/index",
    "explanation/architecture",
    "explanation/cost",
]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture(scope="module")
def browser():
    """Start a browser."""
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def site():
    """Serve the site that was built, and return its address."""
    if not (ROOT / "site" / "index.html").exists():
        pytest.skip("the site is missing: `make docs` builds it")
    handler = functools.partial(QuietHandler, directory=ROOT / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_into_narrow_and_wide_windows(browser, site, scheme):
    """No page is wider than the window, and nothing is missing or fails in the console."""
    page, said = browser.new_page(color_scheme=scheme), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.on("response", lambda got: got.status < 400 or said.append(got.url))
    too_wide = []
    for name in PAGES:
        page.goto(f"{site}/{name}.html")
        for width in (400, 1440):
            page.set_viewport_size({"width": width, "height": 900})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                too_wide.append((name, width))
    assert ([], []) == (too_wide, said)


def test_the_search_finds_a_component(browser, site):
    """A search for a component lists its page first."""
    page = browser.new_page()
    page.goto(f"{site}/index.html")
    page.fill(".sidebar-search", "early-stopping")
    page.press(".sidebar-search", "Enter")
    first = page.wait_for_selector("#search-results li a")
    assert "components/early-stopping.html" in first.get_attribute("href")


def test_two_programs_are_side_by_side_where_there_is_room(browser, site):
    """They are beside each other in a wide window, and below each other in a narrow one."""
    page = browser.new_page()
    page.goto(f"{site}/tutorials/from-lightning.html")
    tops = {}
    for width in (400, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        blocks = page.query_selector_all(".side-by-side >> nth=0 >> .highlight")
        tops[width] = {round(block.bounding_box()["y"]) for block in blocks}
    assert [2, 1] == [len(tops[400]), len(tops[1440])]
