"""The page beside the real service: what it shows is what happens."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from playwright.sync_api import expect

from eventwriter.embedded import free_port
from fix_browser import Window, browser, pictures
from fix_service import World


def test_the_page_shows_what_the_service_does(world: World, tmp_path: Path) -> None:
    """Ready and counted; a killed worker is a restart; a table that goes is named; an end is told."""
    address = f"127.0.0.1:{free_port()}"
    world.traffic(count=50, broken=0.1)
    service = world.start(EVENTWRITER_HTTP__LISTEN=address)
    world.wait_settled()
    with browser(tmp_path) as context:  # from here on no event loop of our own: nothing is published
        window = Window(context.new_page(), pictures())
        window.page.goto(f"http://{address}/")
        expect(window.page.locator("#verdict")).to_have_text("Ready: all 7 streams are being written")
        expect(window.page.locator(".row")).to_have_count(7)
        window.page.get_by_role("button", name="LOGS").click()
        facts = window.page.locator('.details[data-stream="LOGS"] .facts')
        written, letters = world.counts("LOGS")
        expect(facts).to_contain_text(f"written\n{written}\ndead letters\n{letters}", use_inner_text=True)
        window.picture("service")
        latest = window.page.locator('.details[data-stream="LOGS"] .letters')
        latest.locator("a").first.click()
        expect(latest.locator("pre")).to_have_count(1)
        sequence, shown = latest.locator("pre").inner_text().partition("\n")[::2]
        found = json.loads(world.run("dlq", "list", "--stream", "LOGS", "--output", "json").stdout)
        (number,) = (str(each["id"]) for each in found if sequence.endswith(f" message {each['sequence']}"))
        assert world.run("dlq", "show", number).stdout.rstrip().endswith(shown.rstrip())
        window.picture("service-letter")
        assert window.errors == []

        worker = world.worker("LOGS")
        assert worker is not None
        worker.send_signal(signal.SIGKILL)
        expect(window.page.locator('.row[data-stream="LOGS"] td').last).to_have_text("1")
        expect(window.page.locator("#verdict")).to_have_text("Ready: all 7 streams are being written", timeout=30_000)

        world.execute("DROP TABLE logs")
        expect(window.page.locator("#problems")).to_contain_text("schema apply", timeout=30_000)
        picture = window.page.locator('#lanes svg[aria-label^="LOGS:"]')
        expect(picture).to_have_attribute("data-stuck", "right")
        expect(window.page.locator('.row[data-stream="EVENTS"]')).to_contain_text("running")
        window.picture("service-no-table")
        assert window.errors == []

        assert world.stop(service) == 0
        expect(window.page.locator("#silent")).to_be_visible()
        assert window.hosts == {address}
