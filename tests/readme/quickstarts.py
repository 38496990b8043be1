#!/usr/bin/env python3
"""Does in a real browser what docs/quickstarts.md asks its reader to do.

    tests/readme/quickstarts.py browser         two tabs of the page without a backend
    tests/readme/quickstarts.py orders PORT N   an order on the page of the backend at this port, after N earlier ones
"""
import sys

from browser import Browser

LINES = "[...document.querySelectorAll('#messages li')].map((line) => line.textContent)"


def two_tabs(window):
    window.open("http://localhost:8124/")
    second = window.another()
    second.open("http://localhost:8124/")
    for tab in (window, second):
        tab.until("!document.getElementById('send').disabled")
    window.type("#text", "hello")
    window.click("#send")
    for tab in (window, second):
        tab.until(f"{LINES}.join() === 'hello'")
    second.reload()
    second.until(f"{LINES}.join() === 'hello'")
    second.screenshots("quickstarts-browser")


def orders(window, port, earlier):
    window.open(f"http://localhost:{port}/")
    window.until(f"{LINES}.length === {earlier}")
    window.click("#order")
    window.until(f"{LINES}.length === {earlier} + 1")
    last = window.value(f"{LINES}.at(-1)")
    assert last.startswith("order ") and last.endswith(" is paid"), last
    window.reload()
    window.until(f"{LINES}.at(-1) === '{last}'")
    second = window.another()
    second.open(f"http://localhost:{port}/")
    second.until(f"{LINES}.at(-1) === '{last}'")
    second.screenshots(f"quickstarts-orders-{port}")


if __name__ == "__main__":
    with Browser() as opened:
        two_tabs(opened.profile()) if sys.argv[1] == "browser" else orders(opened.profile(), *sys.argv[2:])
