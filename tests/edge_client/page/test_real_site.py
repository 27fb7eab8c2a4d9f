"""Two sites with pages in a real federation over a real Mosquitto, looked at in a real Chromium."""

from contextlib import contextmanager

import pytest

from fedmedclip.simulation.processes.brokers import MosquittoBroker, free_port
from tests.browser import DESK, PHONE, chromium, keep_screenshot, looking_at, violations
from tests.edge_client.conftest import write_image
from tests.simulation.demo.real_federation import Federation, write_data
from tests.simulation.demo.test_patient_data import SECRETS, plant

SITES = ("hospital-a", "hospital-b")
ROUNDS = 5
TOKEN = "0123456789abcdef-right"


def give_page(federation, site):
    """Add a page with buttons to a site's configuration, and return its address."""
    port = free_port()
    path = federation.folder / site / "site.toml"
    page = f'\n[page]\nport = {port}\ntoken = "{TOKEN}"\nallow_changes = true\n'
    asks = path.read_text().replace('approve = "automatic"', 'approve = "ask"\nbytes_per_day = 4000')
    path.write_text(asks + page)
    return f"http://127.0.0.1:{port}/"


def log_in(page):
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("Live: this page follows").wait_for()


@contextmanager
def running(federation, *names):
    """Start parties, and stop those that still run, however the test ends."""
    federation.start(*names, once=False)
    try:
        yield
        for name in names:
            federation.stop(name)
    finally:
        for name in list(federation.processes):
            federation.kill(name)


@pytest.mark.slow
def test_an_operator_sees_the_run_live_and_nothing_of_any_patient(tmp_path, mosquitto_installed):
    data = write_data(tmp_path / "data", SITES)
    write_image(data / "hospital-a" / "glioma" / "PLANTED_Miller_19700101.png", seed=4711)
    plant(data / "hospital-a" / "stroke" / "PLANTED_header.dcm", seed=3)
    (data / "hospital-a" / "glioma" / "PLANTED_broken.png").write_bytes(b"no image at all")
    with MosquittoBroker() as broker, chromium() as browser:
        federation = Federation(tmp_path, broker, data, sites=SITES, rounds=ROUNDS)
        address = give_page(federation, "hospital-a")
        with running(federation, "aggregator", *SITES):
            federation.wait_for_log("hospital-a", "page: ")
            with looking_at(browser, address) as page:
                log_in(page)
                page.get_by_text("Waits for your decision on the plan").wait_for()
                assert not violations(page)
                keep_screenshot(page, "site-asked")
                page.locator("summary", has_text="Approve").click()
                page.get_by_role("button", name="Approve").click()
                page.get_by_text("It is approved: this site takes part.").wait_for()
                page.get_by_text("The run is finished").wait_for(timeout=60_000)
                assert_nothing_planted(page.content())
                choose_versions(page)
                page.get_by_role("button", name="Verify the ledger now").click()
                page.locator("#said", has_text="The ledger is whole").wait_for()
                look_at_all_forms(page)
                for path in ("api/status", "metrics", "report"):
                    answer = page.request.get(address + path)
                    assert answer.status == 200
                    assert_nothing_planted(answer.text())
        assert_nothing_planted(federation.log_of("hospital-a"))


def assert_nothing_planted(text):
    assert [word for word in ("PLANTED", "Miller", *SECRETS) if word in text] == []


def choose_versions(page):
    """Let another version answer, and go back."""
    rows = page.locator("#versions tbody tr")
    is_active = page.locator(".badge.good", has_text="active")
    active = rows.filter(has=is_active).locator("th").inner_text()
    other = rows.filter(has_not=is_active).first
    name = other.locator("th").inner_text()
    other.get_by_role("button", name=f"Activate {name}").click()
    page.locator("#said", has_text=f"Version {name} answers images here now.").wait_for()
    rows.filter(has=is_active).locator("th", has_text=name).wait_for()
    page.locator("summary", has_text="Roll back").click()
    page.get_by_role("button", name="Roll back").click()
    page.locator("#said", has_text=f"Version {active} answers images here again.").wait_for()


def look_at_all_forms(page):
    """Find nothing that keeps people out, on a desk, in the dark, on a phone, on paper."""
    assert not violations(page)
    keep_screenshot(page, "site-desk")
    page.emulate_media(color_scheme="dark")
    assert not violations(page)
    keep_screenshot(page, "site-dark")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="light")
    assert not violations(page)
    # Nothing is wider than a phone but what scrolls in itself.
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    keep_screenshot(page, "site-phone")
    page.set_viewport_size(DESK)
    page.emulate_media(media="print", forced_colors="active")
    assert not violations(page)
    # Paper has no buttons, and shows the whole of a table.
    assert page.locator("form:visible").count() == 0
    assert page.evaluate("getComputedStyle(document.querySelector('.box')).maxHeight") == "none"
    keep_screenshot(page, "site-paper")
