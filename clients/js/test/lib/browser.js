// A real Chromium, and the application's own web server.

import { readFile } from "node:fs/promises";
import http from "node:http";
import { once } from "node:events";
import { after } from "node:test";
import puppeteer from "puppeteer-core";

let browser;
after(() => browser?.close());

/** A page at this address, after `prepare`; it is closed with the browser. Errors of its scripts fail the test that reads `page.errors`. */
export const open = async (url, context, prepare) => {
  browser ??= await puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"],
    protocolTimeout: 120e3,
  });
  const page = await (context ?? browser).newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(String(error)));
  await prepare?.(page);
  await page.goto(url);
  return page;
};

/** Serves texts by path, as the web server of an application does. A function of the query gives a text, or nothing: then it fails. */
export const site = async (pages) => {
  const kinds = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8" };
  const server = http.createServer((request, response) => {
    const { pathname: path, searchParams } = new URL(request.url, "http://site");
    const page = pages[path];
    if (page === undefined) return response.writeHead(404).end();
    const text = typeof page === "function" ? page(searchParams) : page;
    if (text === undefined) return response.writeHead(503).end();
    response.writeHead(200, { "Content-Type": kinds[path.split(".").pop()] ?? "text/plain" }).end(text);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  server.unref();
  return `http://127.0.0.1:${server.address().port}`;
};

export const file = (name) => readFile(new URL(`../../${name}`, import.meta.url), "utf8");
