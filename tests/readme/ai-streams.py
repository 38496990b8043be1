#!/usr/bin/env python3
"""Does in a real browser what docs/ai-streams.md asks its reader to do: reload in the middle, second tab, backend that dies.

Every window must end with exactly the text of the model.
"""
import os
import pathlib
import signal
import subprocess

from browser import Browser

SHOWN = "document.getElementById('answer').textContent"
STATE = "document.getElementById('state').textContent"
WHOLE = f"{STATE} === 'This is the whole answer.'"


def the_models_text():
    program = 'import("./ai/model.mjs").then(async ({ model }) => { for await (const token of model("")) process.stdout.write(token); });'
    return subprocess.run(["node", "-e", program], check=True, capture_output=True).stdout.decode()


def backend(port):
    program = subprocess.Popen(["node", "ai/backend.mjs"], env={**os.environ, "PORT": str(port)}, stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline() == f"open http://localhost:{port}/\n"
    return program


def reload_and_second_tab(browser, text):
    page = browser.profile()
    page.open("http://localhost:8111/")
    page.screenshots("ai-streams-begin")
    page.click("#ask button")
    page.until(f"{SHOWN}.length > 60")
    page.reload()
    page.until(f"{SHOWN}.length > 120")
    assert not page.value(WHOLE), "the answer was over before the second tab"
    second = page.another()
    second.open(page.value("location.href"))
    second.until(f"{SHOWN}.length > 120")
    second.reload()
    for window in (page, second):
        window.until(WHOLE)
    late = page.another()
    late.open(page.value("location.href"))
    late.until(WHOLE)
    for window in (page, second, late):
        assert window.value(SHOWN) == text, window.value(SHOWN)
    late.screenshots("ai-streams-end")


def a_backend_that_dies(browser, text):
    first = backend(8112)
    page = browser.profile()
    page.open("http://localhost:8112/")
    page.click("#ask button")
    page.until(f"{SHOWN}.length > 60")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert list(pathlib.Path("ai/unfinished").iterdir())
    second = backend(8112)
    try:
        page.until(f"{STATE} === 'The answer was interrupted. Ask again.'")
        for reload in (False, True):
            if reload:
                page.reload()
                page.until(f"{STATE} === 'The answer was interrupted. Ask again.'")
            shown = page.value(SHOWN)
            assert 60 < len(shown) < len(text) and text.startswith(shown), shown
        assert not list(pathlib.Path("ai/unfinished").iterdir())
    finally:
        second.kill()
        second.wait()


if __name__ == "__main__":
    expected = the_models_text()
    with Browser() as opened:
        reload_and_second_tab(opened, expected)
        a_backend_that_dies(opened, expected)
