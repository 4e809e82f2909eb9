// The case: verdict by key, on to the next one, and what was typed stays when something goes wrong.
import { change, count, listen, onKey, toast } from "./console.js";

const page = document.getElementById("case");
const buttons = document.querySelector("form[data-verdict]");
const back = document.querySelector("form[data-undo]");
const wrong = document.getElementById("verdict-error");
const { alert, order, query } = page.dataset;
const address = (one) => `/cases/${one}?${query}`;
const DRAFT = `draft ${alert}`;
let changing = false;

async function send(action, fields, told = wrong) {
  if (changing) return;
  changing = true;
  if (told) told.hidden = true;
  try {
    const said = await change(`/cases/${alert}/${action}`, fields);
    sessionStorage.setItem("said", said.words);
    location.assign(address(alert));
  } catch (error) {
    changing = false;
    if (told) { told.textContent = error.message; told.hidden = false; told.scrollIntoView({ block: "nearest" }); }
  }
}

if (buttons) {
  const seen = buttons.elements.seen.value;
  buttons.addEventListener("submit", (event) => { event.preventDefault(); send("verdict", { verdict: event.submitter.value, seen }); });
  onKey("f", () => send("verdict", { verdict: "fraud", seen }));
  onKey("g", () => send("verdict", { verdict: "genuine", seen }));
}
if (back) {
  back.addEventListener("submit", (event) => { event.preventDefault(); send("undo", {}); });
  onKey("u", () => send("undo", {}));
}

// The whole case: by capitals, as the small letters are for the one order that is shown.
const whole = document.querySelector("form[data-whole]");
const wholeBack = document.querySelector("form[data-undo-whole]");
const wholeWrong = document.getElementById("case-error");
if (whole) {
  const judge = (verdict) => send("verdict", { verdict, whole: "1", seen: whole.elements.seen.value }, wholeWrong);
  whole.addEventListener("submit", (event) => { event.preventDefault(); judge(event.submitter.value); });
  onKey("F", () => judge("fraud"));
  onKey("G", () => judge("genuine"));
}
if (wholeBack) {
  const takeBack = () => send("undo", { whole: "1" }, wholeWrong);
  wholeBack.addEventListener("submit", (event) => { event.preventDefault(); takeBack(); });
  onKey("U", takeBack);
}

const said = sessionStorage.getItem("said");
if (said) {
  sessionStorage.removeItem("said");
  toast(said);
}

const go = (one) => { if (one) location.assign(address(one)); };
onKey("j", () => go(page.dataset.after));
onKey("k", () => go(page.dataset.before));
onKey("q", () => location.assign(`/queue?${query}`));

// A note: kept in this tab while it is written, sent by script, and shown again with what is wrong beside it.
const form = document.querySelector("form[data-note]");
if (form) {
  const text = form.elements.text;
  const error = document.getElementById("note-error");
  if (!text.value) text.value = sessionStorage.getItem(DRAFT) ?? "";
  text.addEventListener("input", () => sessionStorage.setItem(DRAFT, text.value));
  onKey("n", () => text.focus());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    error.hidden = true;
    text.removeAttribute("aria-invalid");
    try {
      await change(`/cases/${alert}/notes`, { text: text.value, note_id: crypto.randomUUID?.() ?? "" });
      sessionStorage.removeItem(DRAFT);
      location.assign(`${address(alert)}#notes`);
      location.reload();
    } catch (problem) {
      error.querySelector("span").textContent = problem.message;
      error.hidden = false;
      text.setAttribute("aria-invalid", "true");
      text.setAttribute("aria-describedby", "note-error");
      text.focus();
    }
  });
}

listen({
  counts: count,
  orders: ({ orders, cases }) => {
    if (!(orders.includes(order) || cases?.includes(page.dataset.case)) || changing) return;
    toast(page.dataset.changed, { action: page.dataset.reload, act: () => location.reload(), seconds: 60 });
  },
});
