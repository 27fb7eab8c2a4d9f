"""The page in a real browser, tried by axe-core, and looked at in pictures."""

import pytest

from tests.aggregator.page.conftest import TOKEN, Watched
from tests.browser import DESK, PHONE, chromium, keep_screenshot, looking_at, violations


@pytest.mark.slow
def test_the_federation_is_seen_and_steered_in_a_browser(fresh):
    with chromium() as browser, looking_at(browser, fresh.server.address, viewport=PHONE) as page:
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.get_by_text("Live: this page follows").wait_for()
        assert not violations(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        keep_screenshot(page, "federation-phone")
        fresh.play(3)
        page.get_by_text("3 of 5").first.wait_for(timeout=5000)
        page.set_viewport_size(DESK)
        page.get_by_text("Quarantine…").click()
        form = page.locator("#steering form[action='/do/quarantine']")
        form.locator("input[name=site]").fill("site-1")
        form.locator("input[name=reason]").fill("<b>looks</b> odd")
        form.get_by_role("button").click()
        fresh.carry_out_commands()
        page.locator("#said", has_text="site-1 does not count until it is released").wait_for(timeout=5000)
        page.locator("#members").get_by_text("<b>looks</b> odd").wait_for(timeout=5000)
        for summary in page.locator("summary", has_text="All values").all():
            summary.click()
        assert not violations(page)
        keep_screenshot(page, "federation-desk")
        page.emulate_media(color_scheme="dark")
        assert not violations(page)
        keep_screenshot(page, "federation-dark")
        page.emulate_media(color_scheme="light", media="print")
        assert not page.locator("details.act").first.is_visible()
        assert page.locator("#members table").is_visible()
        keep_screenshot(page, "federation-print")


@pytest.mark.slow
def test_forty_sites_are_read_at_a_desk(tmp_path):
    watched = Watched(tmp_path, sites=40, token=None, allow_changes=False)
    watched.play(2)
    watched.server.start()
    try:
        with chromium() as browser, looking_at(browser, watched.server.address, viewport=DESK) as page:
            page.get_by_text("Live: this page follows").wait_for()
            assert not violations(page)
            keep_screenshot(page, "federation-of-forty")
    finally:
        watched.server.stop()
