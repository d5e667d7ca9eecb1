"""report.html in a real browser: no errors, nothing asked of a network, nothing cut off on a phone or a screen."""

import shutil

import pytest
from browser import tab
from byhand import RUN, write_predictions

from scripts.eval import judge as judge_script
from scripts.eval import report as script

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
LONG = "x" * 900
WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# elements whose right end is beyond the page, tables that scroll in their own frame apart
OUTSIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll')
  && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 90))"""
OPEN = "document.querySelectorAll('details').forEach(e => { e.open = true })"


def test_the_page_is_whole_at_every_width_in_light_and_dark(byhand, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "no Chromium here; on Debian or Ubuntu: apt install chromium"
    hostile = "</pre><img src=https://evil.example/x onerror=alert(1)><script>alert(1)</script>" + LONG
    write_predictions("merged", ['{"a":"x","b":1.0,"c":"hello"}', hostile, f'{{"a":"{LONG}"}}', '{"a":1}'])
    judge_script.main(["-r", RUN])
    script.main(["-r", RUN])
    with tab(chromium, tmp_path / "profile") as page:
        colours = set()
        for width in (390, 1280):
            for dark in (False, True):
                page.open(byhand / "report.html", width, dark)
                page.value(OPEN)
                assert page.value("innerWidth") == width
                assert page.value(WIDTH) == 0
                assert page.value(OUTSIDE) == []
                assert page.value("[...document.querySelectorAll('svg')].every(e => e.clientWidth > 100)")
                assert page.value("document.querySelectorAll('.histogram .column').length") > 0
                assert page.value("document.querySelectorAll('script, img').length") == 0
                assert page.problems == []
                colours.add(page.value("getComputedStyle(document.body).backgroundColor"))
        assert len(colours) == 2
        # the same words on both sides are not marked, those of one side are
        marked = page.value("[...document.querySelectorAll('mark')].map(e => e.textContent)")
        assert "world" in " ".join(marked)
        assert "hello" not in marked
