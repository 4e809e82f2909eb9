// What all pages share: changes with their CSRF token, toasts, the list of keys, parts that come later, figures that live.

const csrf = document.body.dataset.csrf;

export async function change(address, fields = {}) {
  // A form's change by script: JSON comes back, and a refusal is an Error whose message is fit for a person.
  const body = new URLSearchParams({ ...fields, csrf });
  let answer;
  try {
    answer = await fetch(address, {
      method: "POST", body, headers: { Accept: "application/json", "X-CSRF-Token": csrf },
    });
  } catch {
    throw new Error(document.body.dataset.away);
  }
  if (answer.redirected && new URL(answer.url).pathname === "/login") location.reload();
  const text = await answer.text();
  let said;
  try {
    said = JSON.parse(text);
  } catch {  // a page that says no
    said = { words: new DOMParser().parseFromString(text, "text/html").querySelector("main p")?.textContent };
  }
  if (!answer.ok) throw Object.assign(new Error(said.words || said.detail || `${answer.status}: nothing was changed`), { said });
  return said;
}

// On a phone the navigation is wider than the window: where one is shall be seen.
const here = document.querySelector(".nav [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft - (here.parentElement.clientWidth - here.offsetWidth) / 2;

const toasts = document.getElementById("toasts");

export function toast(words, { tone = "", action = "", act = null, seconds = 8 } = {}) {
  const box = document.createElement("div");
  box.className = `toast ${tone}`;
  const text = document.createElement("span");
  text.textContent = words;
  box.append(text);
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action;
    button.addEventListener("click", () => { box.remove(); act(); });
    box.append(button);
  }
  while (toasts.children.length > 2) toasts.firstChild.remove();
  toasts.append(box);
  setTimeout(() => box.remove(), seconds * 1000);
  return box;
}

// Keys: a page says which it knows. None while something is being written, and none together with Ctrl, Alt or Meta.
const known = new Map();
export function onKey(key, act) { known.set(key, act); }

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  const where = event.target;
  if (event.key === "Escape" && where.matches?.("input, textarea, select")) { where.blur(); return; }
  if (where.isContentEditable || where.matches?.("input:not([type=checkbox], [type=radio]), textarea, select") || document.querySelector("dialog[open]")) return;
  const act = known.get(event.key);
  if (act) { event.preventDefault(); act(event); }
});

const keys = document.getElementById("keys");
if (keys) {
  const show = () => keys.showModal();
  onKey("?", show);
  for (const button of document.querySelectorAll("[data-keys]")) button.addEventListener("click", show);
}

// Parts of a page that are asked for once the rest is there: <div data-fragment="/address" data-failed="words">.
async function complete(place) {
  try {
    const answer = await fetch(place.dataset.fragment, { headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error();
    place.innerHTML = await answer.text();
  } catch {
    place.textContent = place.dataset.failed;
  }
}
for (const place of document.querySelectorAll("[data-fragment]")) complete(place);

export function listen(handlers, state = () => {}) {
  // Server-sent events; the browser comes again by itself when the connection ends.
  let source = null;
  const open = () => {
    source = new EventSource("/events");
    source.onopen = () => state(true);
    source.onerror = () => {
      state(false);
      if (source.readyState === EventSource.CLOSED) setTimeout(open, 5000);
    };
    for (const [name, act] of Object.entries(handlers)) source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  };
  open();
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) open(); });
}

export function count(counts) {
  for (const place of document.querySelectorAll("[data-count]")) {
    const value = counts[place.dataset.count];
    if (value !== undefined) place.textContent = value.toLocaleString("en");
  }
}
