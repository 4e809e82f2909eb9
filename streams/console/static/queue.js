// The queue: a row that keys act on, verdicts without leaving the list, and news that moves nothing.
// The row of a case stands for all of its orders: a verdict on it is for those that are open.
import { change, count, listen, onKey, toast } from "./console.js";

const place = document.getElementById("rows");
const news = document.getElementById("news");
const live = document.getElementById("live");
const filters = document.getElementById("filters");
const rows = () => [...place.querySelectorAll("tr[data-alert]")];
let chosen = null;
let last = null; // the alert of the last verdict and whether it was for its case, for undo
const whole = (row) => (row.dataset.case ? { whole: "1" } : {});
const fresh = new Set();

function choose(row, { focus = true } = {}) {
  chosen?.removeAttribute("aria-current");
  chosen = row;
  if (!row) return;
  row.setAttribute("aria-current", "true");
  if (focus) row.querySelector("a").focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function move(by) {
  const all = rows();
  if (!all.length) return;
  const now = all.indexOf(chosen);
  choose(all[Math.min(all.length - 1, Math.max(0, now < 0 ? 0 : now + by))]);
}

async function judge(verdict) {
  const row = chosen;
  if (!row) { move(1); return; }
  try {
    const said = await change(`/cases/${row.dataset.alert}/verdict`, { verdict, seen: row.dataset.seen, ...whole(row) });
    last = { alert: row.dataset.alert, fields: whole(row) };
    toast(said.words, { action: `${news.dataset.undo} (u)`, act: undo });
    move(1);
    await refresh([row.dataset.order]);
  } catch (error) {
    toast(error.message, { tone: "bad", seconds: 15 });
    await refresh([row.dataset.order]);
  }
}

async function undo() {
  const mine = last && chosen?.dataset.alert === last.alert;
  const what = chosen && chosen.dataset.answered === "1" && !mine ? { alert: chosen.dataset.alert, fields: whole(chosen) } : last;
  if (!what) return;
  try {
    const said = await change(`/cases/${what.alert}/undo`, what.fields);
    toast(said.words);
    last = null;
    const row = rows().find((one) => one.dataset.alert === what.alert);
    if (row) { choose(row); await refresh([row.dataset.order]); }
  } catch (error) {
    toast(error.message, { tone: "bad", seconds: 15 });
  }
}

// A row that changed is shown as it is now, in its place: it leaves the list only when the list is asked for anew.
async function refresh(orders, cases = []) {
  const wanted = rows().filter((row) => orders.includes(row.dataset.order) || cases.includes(row.dataset.case));
  await Promise.all(wanted.map(async (row) => {
    const answer = await fetch(`/rows/${row.dataset.alert}?${row.closest("table").dataset.query}`);
    if (!answer.ok) return;
    const made = document.createElement("template");
    made.innerHTML = await answer.text();
    const next = made.content.querySelector("tr[data-alert]");
    if (!next || !row.isConnected) return;
    const focused = row.contains(document.activeElement);
    row.replaceWith(next);
    if (row === chosen) choose(next, { focus: focused });
  }));
}

function tell() {
  if (!fresh.size) { news.hidden = true; news.replaceChildren(); return; }
  const words = fresh.size === 1 ? news.dataset.one : news.dataset.many.replace("{n}", fresh.size.toLocaleString("en"));
  const text = document.createElement("span");
  text.textContent = words;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button small primary";
  button.textContent = news.dataset.show;
  button.addEventListener("click", show);
  news.replaceChildren(text, button);
  news.hidden = false;
}

async function show() {
  const query = new URLSearchParams(new FormData(filters));
  query.set("part", "rows");
  const answer = await fetch(`/queue?${query}`);
  if (!answer.ok) return;
  const names = new Set(fresh);
  fresh.clear();
  tell();
  place.innerHTML = await answer.text();
  for (const row of rows()) if (names.has(row.dataset.alert)) row.classList.add("fresh");
  choose(rows()[0] ?? null);
}

listen({
  alerts: ({ alerts }) => { for (const alert of alerts) fresh.add(alert); tell(); },
  orders: ({ orders, cases }) => refresh(orders, cases),
  counts: count,
  resync: () => show(),
}, (on) => { live.textContent = on ? live.dataset.on : live.dataset.off; live.classList.toggle("on", on); });

for (const control of filters.querySelectorAll("select, input[type=checkbox]")) control.addEventListener("change", () => filters.requestSubmit());
filters.querySelector("[data-apply]").classList.add("visually-hidden");
filters.addEventListener("submit", () => { for (const control of filters.elements) if (control.name && !control.value) control.disabled = true; });
addEventListener("pageshow", () => { for (const control of filters.elements) control.disabled = false; });

place.addEventListener("focusin", (event) => { const row = event.target.closest("tr[data-alert]"); if (row && row !== chosen) choose(row, { focus: false }); });
place.addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-alert]");
  if (row && !event.target.closest("a, button") && !String(getSelection())) row.querySelector("a").click();
});

onKey("j", () => move(1));
onKey("ArrowDown", () => move(1));
onKey("k", () => move(-1));
onKey("ArrowUp", () => move(-1));
onKey("f", () => judge("fraud"));
onKey("g", () => judge("genuine"));
onKey("u", undo);
onKey("/", () => { const text = document.getElementById("text"); text.focus(); text.select(); });
onKey("r", show);
