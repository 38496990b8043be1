#!/usr/bin/env python3
"""Does in two real browsers what docs/tutorial.md asks its reader to do, and compares what happens.

    tests/readme/tutorial.py               the table of "Try it"
    tests/readme/tutorial.py maintenance   a new window shows the message that was sent twice once
"""
import sys

from browser import Browser

CHAT = "http://localhost:8101/"
LINES = "[...document.querySelectorAll('#messages li')].map((line) => line.textContent)"


def log_in(browser, name):
    window = browser.profile()
    window.open(CHAT)
    window.until("!document.getElementById('login').hidden")
    if name == "ann":
        window.screenshots("tutorial-login")
    window.type("[name=name]", name)
    window.type("[name=password]", name)
    window.click("#login button")
    window.until(f"document.getElementById('state')?.textContent === 'You are {name}, in chat:lobby.'")
    return window


def write(window, *texts):
    for text in texts:
        window.type("#text", text)
        window.click("#write button")


def shows(window, *lines):
    """Waits until the window ends with these lines."""
    window.until(f"JSON.stringify({LINES}.slice(-{len(lines)})) === JSON.stringify({list(lines)})")


def is_once_and_in_order(window, lines):
    seen = [line for line in window.value(LINES) if line in lines]
    assert seen == lines, f"{seen} instead of {lines}"


def try_it(browser):
    ann = log_in(browser, "ann")
    shows(ann, "backend: ann has logged in")
    bob = log_in(browser, "bob")
    shows(bob, "backend: ann has logged in", "backend: bob has logged in")
    write(ann, "hello")
    shows(bob, "ann: hello")
    write(bob, "<b>hi</b>")
    for window in (ann, bob):
        shows(window, "ann: hello", "bob: <b>hi</b>")
        window.click("[href='/?room=staff']")
    ann.until("document.getElementById('state').textContent === 'You are ann, in chat:staff.'")
    write(ann, "a secret")
    shows(ann, "ann: a secret")
    bob.until("document.getElementById('state').textContent === 'You may not enter this room.'")
    assert bob.value(LINES) == []
    bob.screenshots("tutorial-forbidden")

    for window in (ann, bob):
        window.click("[href='/?room=lobby']")
        shows(window, "ann: hello", "bob: <b>hi</b>")
    bob.click("#offline")
    bob.until("document.getElementById('state').textContent === 'Not connected.'")
    write(bob, "from the tunnel")
    missed = [f"missed {number}" for number in range(30)]
    write(ann, *missed)
    shows(ann, *(f"ann: {text}" for text in missed))
    assert not any("missed" in line or "tunnel" in line for line in bob.value(LINES))
    bob.click("#offline")
    shows(bob, *(f"ann: {text}" for text in missed), "bob: from the tunnel")
    everything = ["ann: hello", "bob: <b>hi</b>", *(f"ann: {text}" for text in missed), "bob: from the tunnel"]
    is_once_and_in_order(bob, everything)

    bob.reload()
    bob.until(f"{LINES}.length === 20")
    while bob.value("!document.getElementById('older').hidden"):
        before = bob.value(f"{LINES}.length")
        bob.click("#older")
        bob.until(f"{LINES}.length > {before} || document.getElementById('older').hidden")
    bob.until("document.getElementById('state').textContent === 'This is the beginning.'")
    is_once_and_in_order(bob, ["backend: ann has logged in", "backend: bob has logged in", *everything])
    bob.screenshots("tutorial-chat")

    bob.until_printed("token renewed")
    write(ann, "still here")
    shows(bob, "ann: still here")


def maintenance(browser):
    window = log_in(browser, "bob")
    window.until(f"{LINES}.length === 20")
    is_once_and_in_order(window, ["backend: maintenance at noon"])


if __name__ == "__main__":
    with Browser() as opened:
        maintenance(opened) if sys.argv[1:] == ["maintenance"] else try_it(opened)
