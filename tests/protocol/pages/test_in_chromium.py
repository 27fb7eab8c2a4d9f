import pytest

from fedmedclip.protocol.pages.server import PageServer
from fedmedclip.protocol.pages.settings import PageSettings
from tests.browser import DESK, PHONE, chromium, keep_screenshot, looking_at, violations
from tests.protocol.pages.standin import TOKEN, Standin


@pytest.fixture
def standin():
    return Standin()


@pytest.fixture
def server(standin, tmp_path):
    settings = PageSettings(port=0, token=TOKEN, allow_changes=True)
    server = PageServer(standin.page(), settings, tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_a_person_logs_in_changes_something_and_sees_it_live(standin, server):
    with chromium() as browser, looking_at(browser, server.address, viewport=PHONE) as page:
        assert page.title() == "Who is there?"
        assert not violations(page)
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("Live: this page follows").wait_for()
        standin.number = 4711
        page.get_by_text("4711").wait_for()
        page.get_by_label("Name").fill("<i>nobody</i> & co")
        page.get_by_role("button", name="Name somebody").click()
        page.get_by_text("named <i>nobody</i> & co").wait_for()
        page.locator("dd", has_text="<i>nobody</i> & co").wait_for(timeout=5000)
        assert not violations(page)
        # Nothing is wider than a phone but what scrolls in itself.
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        keep_screenshot(page, "standin-phone")
        page.set_viewport_size(DESK)
        keep_screenshot(page, "standin-desk")
        page.emulate_media(color_scheme="dark")
        assert not violations(page)
        keep_screenshot(page, "standin-dark")
        server.stop()
        page.get_by_text("The connection is lost").wait_for()
