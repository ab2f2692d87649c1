"""playwright's sync API, which switches greenlets: three threads, each with a browser of its own.

with_playwright.py CHROMIUM
"""

import sys

import beside
from playwright.sync_api import sync_playwright

PAGE = "<title>page {0}</title><button onclick='document.title += \", clicked\"'>{0}</button>"


def task(number):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=sys.argv[1], args=["--no-sandbox"])
        page = browser.new_page()
        page.set_content(PAGE.format(number))
        page.click("button")
        sizes = page.evaluate("['a', 'bc'].map(word => word.length)")
        try:
            page.click("#missing", timeout=100)
        except Exception as error:
            missing = type(error).__name__
        found = page.title(), sizes, missing
        browser.close()
    return found


beside.run(task, count=3)
