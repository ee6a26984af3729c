// Sends what the forms of this page say, to this server and nowhere else. What is typed is kept in
// the page and nowhere else, and what comes back is shown as text.
"use strict";

const field = (form, name) => form.elements.namedItem(name);

async function show(form, request) {
  const output = form.querySelector("output");
  output.textContent = "…";
  try {
    const response = await request();
    const headers = ["location", "etag", "retry-after", "www-authenticate", "x-request-id"]
      .filter((name) => response.headers.has(name))
      .map((name) => `${name}: ${response.headers.get(name)}\n`);
    let text = "";
    if ((response.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
      // A stream does not end by itself: what has come within a few seconds is shown.
      const reader = response.body.getReader();
      const end = setTimeout(() => reader.cancel(), 3000);
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        text += new TextDecoder().decode(part.value);
      }
      clearTimeout(end);
    } else {
      text = await response.text();
    }
    let body = text;
    try { body = JSON.stringify(JSON.parse(text), null, 2); } catch { /* it is no JSON */ }
    const shown = document.createElement("pre");
    shown.textContent = `${response.status} ${response.statusText}\n${headers.join("")}\n${body}`;
    output.replaceChildren(shown);
    return text;
  } catch (error) {
    output.textContent = String(error);
    return "";
  }
}

const credentials = document.getElementById("credentials");
credentials.hidden = false;
credentials.addEventListener("submit", async (event) => {
  event.preventDefault();
  const pair = [field(credentials, "client_id"), field(credentials, "client_secret")];
  const basic = btoa(pair.map((input) => encodeURIComponent(input.value)).join(":"));
  const body = new URLSearchParams({ grant_type: "client_credentials" });
  const text = await show(credentials, () => fetch("/token", {
    method: "POST", body, headers: { authorization: `Basic ${basic}` },
  }));
  try { field(credentials, "token").value = JSON.parse(text).access_token ?? ""; } catch { /* shown */ }
});

for (const form of document.querySelectorAll("form.try")) {
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    let path = form.dataset.path;
    const query = new URLSearchParams();
    const headers = {};
    for (const input of form.querySelectorAll("input")) {
      if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
      else if (input.value === "") continue;
      else if (input.dataset.in === "query") query.set(input.name, input.value);
      else headers[input.name] = input.value;
    }
    const token = field(credentials, "token").value;
    if (token !== "" && form.dataset.token !== undefined) headers.authorization = `Bearer ${token}`;
    const body = form.querySelector("textarea")?.value;
    if (body !== undefined) headers["content-type"] = form.dataset.type;
    const address = query.size === 0 ? path : `${path}?${query}`;
    show(form, () => fetch(address, { method: form.dataset.method, headers, body }));
  });
}
