import { expect, test } from "vitest";
import { isOrigin } from "../../src/wire/origin.ts";

test.each([
  "https://app.example.com",
  "https://app.example.com:8443",
  "http://localhost:5173",
  "http://127.0.0.1:8787",
  "http://[::1]:8787",
  "tauri://localhost",
  "chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai",
  "moz-extension://2c127fa4-62c7-7e4f-90e5-472b45eecfdc",
  "vscode-webview://0e4b8c2e",
  "capacitor://localhost",
  "app://obsidian.md",
])("%s is an origin", (text) => {
  expect(isOrigin(text)).toBe(true);
});

test.each([
  "",
  "*",
  "null",
  "app.example.com",
  "https://",
  "https://app.example.com/",
  "https://app.example.com/path",
  "https://app.example.com?x",
  "https://app.example.com:443",
  "HTTPS://app.example.com",
  "https://App.example.com",
  "https://user@app.example.com",
  "https://*.example.com",
  "https://a b",
  "tauri://localhost/",
  "tauri://LOCALHOST",
  "tauri:localhost",
  "tauri://",
  "file:///",
  "javascript:alert(1)",
  "data:text/html,x",
  `https://${"a".repeat(600)}.example.com`,
])("%j is none", (text) => {
  expect(isOrigin(text)).toBe(false);
});
