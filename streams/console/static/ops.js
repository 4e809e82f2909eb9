// The operations pages: what is live comes by server-sent events; without this file every page works when loaded again.

const state = document.querySelector("[data-live-state]");
const say = (what) => { if (state) state.textContent = state.dataset[what] ?? ""; };

const shown = new Map();

// Only what is new is put in: a status that is written anew is read aloud anew. What has the focus stays.
function put(parts) {
  for (const [name, html] of Object.entries(parts)) {
    const place = document.querySelector(`[data-part="${CSS.escape(name)}"]`);
    if (!place || shown.get(name) === html || place.contains(document.activeElement)) continue;
    if (name === "headline") {
      const text = new DOMParser().parseFromString(html, "text/html").body.textContent;
      if (place.textContent !== text) place.textContent = text;
    } else place.innerHTML = html;
    shown.set(name, html);
  }
}

function live(place) {
  const hold = document.querySelector("[data-live-hold]");
  let source = null;
  const begin = () => {
    source = new EventSource(place.dataset.live);
    source.onopen = () => say("on");
    source.onerror = () => say("off");
    source.onmessage = (message) => put(JSON.parse(message.data));
  };
  const end = () => { source?.close(); source = null; };
  const show = () => {
    const held = hold.getAttribute("aria-pressed") === "true";
    hold.textContent = held ? hold.dataset.go : hold.dataset.hold;
    if (held) { end(); say("held"); } else if (!source && !document.hidden) begin();
  };
  hold.hidden = false;
  hold.addEventListener("click", () => {
    hold.setAttribute("aria-pressed", String(hold.getAttribute("aria-pressed") !== "true"));
    show();
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) end(); else show(); });
  addEventListener("pagehide", end);
  show();
}

const place = document.querySelector("[data-live]");
if (place) live(place);

// A button that changes much asks first; the server does not rely on it.
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-sure]") : null;
  if (button && !confirm(button.dataset.sure)) event.preventDefault();
});

// One box for all boxes of a table.
const all = document.querySelector("[data-all]");
if (all) {
  all.hidden = false;
  all.addEventListener("change", () => {
    for (const box of all.closest("table").querySelectorAll("tbody input[type=checkbox]")) box.checked = all.checked;
  });
}

// What is typed into a form of some length outlives a session that ends, a page that is too old and a broker that is
// away: it is kept in this tab until a change of the form is done, which the next page says.
for (const form of document.querySelectorAll("form[data-draft]")) {
  const key = `draft ${document.body.dataset.user} ${form.dataset.draft}`;
  const fields = [...form.elements].filter((field) => field.name && !["hidden", "submit", "checkbox"].includes(field.type));
  const values = () => Object.fromEntries(fields.map((field) => [field.name, field.value]));
  const kept = JSON.parse(sessionStorage.getItem(key) ?? "null");
  const answered = form.querySelector("[aria-invalid]");  // the server shows what was typed, and what is wrong with it
  if (kept && !answered && fields.some((field) => kept[field.name] !== undefined && kept[field.name] !== field.value)) {
    const own = values();
    const fill = (from) => { for (const field of fields) if (from[field.name] !== undefined) field.value = from[field.name]; };
    fill(kept);
    const said = document.querySelector(`[data-drafted="${CSS.escape(form.dataset.draft)}"]`);
    if (said) {
      said.hidden = false;
      said.querySelector("button").addEventListener("click", () => {
        fill(own);
        sessionStorage.removeItem(key);
        said.hidden = true;
      });
    }
  }
  form.addEventListener("input", () => sessionStorage.setItem(key, JSON.stringify(values())));
}
const done = document.querySelector("[data-done]");
if (done) for (const name of done.dataset.done.split(" ")) sessionStorage.removeItem(`draft ${document.body.dataset.user} ${name}`);

// A page of something that runs looks again.
const again = document.querySelector("[data-reload]");
if (again) setTimeout(() => location.reload(), Number(again.dataset.reload));
